"""Which files this process has open through SQLite.

POSIX releases all locks of a process on a file when the process closes any descriptor of it. So
while SQLite has an outbox open here, no other code may open and close it.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from tracker import forks
from tracker.errors import OutboxDamagedError, OutboxError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_open: Counter[tuple[int, int]] = Counter()
_lock = threading.RLock()
"""Guards `_open`, which counts the open outboxes by device and inode."""


class ReplacedError(OutboxDamagedError):
    """Another file, or none, is at the outbox's path. The file there needs no salvage."""


class LostFilesError(ReplacedError):
    """Log, index or descriptors of the open outbox are gone; its file is still at the path."""


def check_links(path: Path, links: int) -> None:
    """Refuse a file with several names: there would be a separate log and lock for each.

    Raises:
        OutboxError: if it has more than one.
    """
    if links > 1:
        raise OutboxError(
            f"the outbox {path} has {links} names (hard links). A program that opens it by another "
            "name uses another log and another lock, and events would be lost. Delete the other "
            f"names (`find DIRECTORY -samefile {path}` finds them); to copy an outbox, use "
            "`tracker-sync backup`"
        )


def count_opened(file: tuple[int, int], if_first: Callable[[], None]) -> None:
    """Count one more open outbox on `file`; if it is the first, call `if_first` before."""
    with _lock:
        if not _open[file]:
            if_first()
        _open[file] += 1


def count_closed(file: tuple[int, int]) -> None:
    """Count one open outbox less, after its last connection was closed."""
    with _lock:
        _open[file] -= 1
        if not _open[file]:
            del _open[file]


def _renew_lock_after_fork() -> None:
    global _lock
    _lock = threading.RLock()


forks.in_child(forks.Stage.OPEN_FILES, _renew_lock_after_fork)

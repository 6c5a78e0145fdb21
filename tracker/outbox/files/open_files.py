"""Which files this process has open through SQLite.

POSIX frees all locks of a process on a file when the process closes any descriptor of it. So
nobody may open and close an outbox by other means than SQLite while SQLite has it open here.
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
"""Guards `_open`, the number of outboxes that are open by device and inode."""


class ReplacedError(OutboxDamagedError):
    """Another file, or none, is at the outbox's path. Whatever is there needs no salvage for it."""


class LostFilesError(ReplacedError):
    """Log, index or descriptors of the outbox are gone that is open; its file is at the path."""


def check_links(path: Path, links: int) -> None:
    """Refuse a file with more than one name: its users would have a log and a lock each.

    Raises:
        OutboxError: if it has.
    """
    if links > 1:
        raise OutboxError(
            f"the outbox {path} has {links} names (hard links). Whoever opens it by another one "
            "has another log and another lock, and events would be lost. Delete the other names "
            f"(`find DIRECTORY -samefile {path}` finds them); copy an outbox with "
            "`tracker-sync backup`"
        )


def entered(file: tuple[int, int], if_first: Callable[[], None]) -> None:
    """Count an outbox on `file`, after calling `if_first` if it is the only one."""
    with _lock:
        if not _open[file]:
            if_first()
        _open[file] += 1


def left(file: tuple[int, int]) -> None:
    """Count an outbox less, now that its last connection is closed."""
    with _lock:
        _open[file] -= 1
        if not _open[file]:
            del _open[file]


def _renew_lock_after_fork() -> None:
    global _lock
    _lock = threading.RLock()


forks.in_child(forks.Stage.OPEN_FILES, _renew_lock_after_fork)

"""`LogGrowth`: warns of a write-ahead log that grows because another program reads for long."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tracker import log
from tracker.outbox.files import lock_holders, paths

if TYPE_CHECKING:
    from pathlib import Path

LARGE_LOG_BYTES = 24 * 1024 * 1024
"""A log of this size was not started over for a long time: usually that happens at 4 MB."""


def excess(path: Path) -> int:
    """Return the size of the log of `path` in bytes if it is large, otherwise 0."""
    size = paths.log_bytes(path)
    return size if size >= LARGE_LOG_BYTES else 0


def describe_readers(path: Path) -> str:
    """Return which processes read the outbox now, as far as known, for a message to operators."""
    others = [pid for pid in lock_holders.readers(path) if pid != os.getpid()]
    if not others:
        return f"`fuser {path}` lists the processes that have it open"
    named = ", ".join(map(str, others))
    return f"process {named} reads it" if len(others) == 1 else f"processes {named} read it"


class LogGrowth:
    """Warns, once each time that the log becomes large, which readers keep it from being reset.

    SQLite appends to the log until no program reads an older state; then it starts the log over.

    Args:
        path: The outbox.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._warned = False

    def check(self) -> None:
        """Check the size of the log. Cheap enough to be called every few seconds.

        Raises:
            OSError: if its folder cannot be read.
        """
        size = excess(self._path)
        if size and not self._warned:
            log.warning(
                "the write-ahead log of the outbox %s has %d MB and grows until a program that "
                "reads an old state of it finishes; %s",
                self._path,
                size // 1_000_000,
                describe_readers(self._path),
            )
        self._warned = bool(size)

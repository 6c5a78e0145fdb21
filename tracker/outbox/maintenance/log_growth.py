"""`LogGrowth`: warns of a write-ahead log that grows because another program reads for long."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tracker import log
from tracker.outbox.files import lock_holders, paths

if TYPE_CHECKING:
    from pathlib import Path

LARGE_LOG_BYTES = 24 * 1024 * 1024
"""A log of this size has not been started over for long: usually that happens at 4 MB."""


def excess(path: Path) -> int:
    """Return the bytes of the log of `path` if it is large, and 0 if it is as small as usual."""
    size = paths.log_bytes(path)
    return size if size >= LARGE_LOG_BYTES else 0


def describe_readers(path: Path) -> str:
    """Return who reads the outbox now, as far as the system tells, for a message to operators."""
    others = [pid for pid in lock_holders.readers(path) if pid != os.getpid()]
    if not others:
        return f"`fuser {path}` names the processes that have it open"
    named = ", ".join(map(str, others))
    return f"process {named} reads it" if len(others) == 1 else f"processes {named} read it"


class LogGrowth:
    """Says once, each time that the log has become large, who keeps it from starting over.

    SQLite appends to the log until no program reads an older state; then it starts the log over.

    Args:
        path: The outbox.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._warned = False

    def look(self) -> None:
        """Look at the size of the log. Cheap enough for every few seconds.

        Raises:
            OSError: if its folder may not be looked into.
        """
        size = excess(self._path)
        if size and not self._warned:
            log.warning(
                "the write-ahead log of the outbox %s has %d MB and grows until a program that "
                "reads an old state of it ends its read; %s",
                self._path,
                size // 1_000_000,
                describe_readers(self._path),
            )
        self._warned = bool(size)

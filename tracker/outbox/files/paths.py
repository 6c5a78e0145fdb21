"""Where the files of an outbox are: what SQLite and the tracker add to its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMPANIONS = ("-wal", "-shm")
"""What SQLite adds for the write-ahead log and its index."""
JOURNAL = "-journal"
"""What SQLite adds for a rollback journal, which an outbox has only while it is being created."""


def beside(path: Path, suffix: str) -> Path:
    """Return the path of the file whose name goes on from that of `path`."""
    return path.with_name(path.name + suffix)


def log(path: Path) -> Path:
    """Return where SQLite's write-ahead log is."""
    return beside(path, "-wal")


def index(path: Path) -> Path:
    """Return where the index of the log is, which processes share as memory."""
    return beside(path, "-shm")


def write_lock(path: Path) -> Path:
    """Return where the lock is that a process holds while it writes."""
    return beside(path, ".lock")


def upload_lock(path: Path) -> Path:
    """Return where the lock is that the process holds which uploads."""
    return beside(path, ".sync-lock")


def ballast(path: Path) -> Path:
    """Return where the file is that is given up when the disk is full."""
    return beside(path, ".ballast")


def all_of(path: Path) -> list[Path]:
    """Return the outbox and every file that can be beside it in use, whether or not it is there."""
    return [path, log(path), index(path), write_lock(path), upload_lock(path), ballast(path)]


def log_bytes(path: Path) -> int:
    """Return the size of the log of `path`, 0 if there is none."""
    try:
        return log(path).stat().st_size
    except FileNotFoundError:
        return 0

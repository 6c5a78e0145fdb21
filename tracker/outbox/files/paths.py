"""The paths of an outbox's files: the suffixes that SQLite and the tracker add to its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMPANIONS = ("-wal", "-shm")
"""The suffixes of SQLite's write-ahead log and its index."""
JOURNAL = "-journal"
"""The suffix of SQLite's rollback journal, which an outbox has only while it is created."""


def beside(path: Path, suffix: str) -> Path:
    """Return the path of the file whose name is that of `path` with `suffix` added."""
    return path.with_name(path.name + suffix)


def log(path: Path) -> Path:
    """Return the path of SQLite's write-ahead log."""
    return beside(path, "-wal")


def index(path: Path) -> Path:
    """Return the path of the log's index, which processes share as memory."""
    return beside(path, "-shm")


def write_lock(path: Path) -> Path:
    """Return the path of the lock that a process holds while it writes."""
    return beside(path, ".lock")


def upload_lock(path: Path) -> Path:
    """Return the path of the lock that the uploading process holds."""
    return beside(path, ".sync-lock")


def handover(path: Path) -> Path:
    """Return the path of the pipe through which waiting processes hand over events."""
    return beside(path, ".handover")


def ballast(path: Path) -> Path:
    """Return the path of the file that is deleted to make room when the disk is full."""
    return beside(path, ".ballast")


def signing_key(path: Path) -> Path:
    """Return the path of the key that signs the outbox's checkpoints."""
    return beside(path, ".signing-key")


def run_lock(path: Path, run: str) -> Path:
    """Return the path of the lock of a process that stores the starts of its spans."""
    return beside(path, f".run-{run}")


def run_locks(path: Path) -> Iterator[Path]:
    """Yield the paths of those locks that exist, of processes that live and of those that died."""
    prefix = run_lock(path, "").name
    for each in path.parent.iterdir():  # not glob, whose signs the name may contain
        if each.name.startswith(prefix):
            yield each


def all_of(path: Path) -> list[Path]:
    """Return the outbox and every file that may be in use beside it, whether or not it exists."""
    locks = [write_lock(path), upload_lock(path)]
    return [path, log(path), index(path), *locks, handover(path), ballast(path)]


def log_bytes(path: Path) -> int:
    """Return the size of the write-ahead log of `path`, or 0 if there is none."""
    try:
        return log(path).stat().st_size
    except FileNotFoundError:
        return 0

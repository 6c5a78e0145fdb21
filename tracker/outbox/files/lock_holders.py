"""Which processes hold a lock on a file. Only Linux shows it, at no cost to the lock holder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCKS = Path("/proc/locks")
_READ_MARKS = range(123, 128)
"""Bytes of the index that a connection locks while it reads a state of the write-ahead log
(`WAL_READ_LOCK` in SQLite's wal.c, counted from `UNIX_SHM_BASE` in its os_unix.c)."""


class _Lock(NamedTuple):
    """A lock as ``/proc/locks`` shows it: ``3: FLOCK  ADVISORY  WRITE 205 fe:00:2247 0 EOF``."""

    kind: str
    pid: int
    first: int


def upload_lock_holders(path: Path) -> list[int]:
    """Return the processes that hold a ``flock`` on the file at `path`; [] if unknown."""
    return sorted({lock.pid for lock in _locks_on(path) if lock.kind == "FLOCK" and lock.pid > 0})


def readers(path: Path) -> list[int]:
    """Return the processes that are reading the outbox at `path`; [] if unknown."""
    index = path.with_name(f"{path.name}-shm")
    return sorted({
        lock.pid
        for lock in _locks_on(index)
        if lock.kind == "POSIX" and lock.pid > 0 and lock.first in _READ_MARKS
    })  # fmt: skip


def is_stopped(pid: int) -> bool:
    """Return True if the process is stopped (SIGSTOP, Ctrl-Z, a debugger)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].lstrip()[:1] in ("T", "t")


def _locks_on(path: Path) -> Iterator[_Lock]:
    try:
        inode = path.stat().st_ino
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        # Device numbers differ from those of `stat` on some file systems, so only the inode is
        # compared. A waiter's line has "->" before the kind, and therefore one field more.
        fields = line.split()
        if len(fields) < 8:
            continue
        kind, pid, place, first = fields[1], fields[4], fields[5], fields[6]
        if place.endswith(f":{inode}") and first.isdecimal():
            yield _Lock(kind, int(pid), int(first))

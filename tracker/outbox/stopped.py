"""Whether the process that holds a lock is stopped (SIGSTOP, Ctrl-Z, a debugger).

The kernel frees the locks of a process that dies, not of one that is stopped. Where nothing hangs
on it but a duplicate or two, as with the upload lock, such a lock can be taken over. Linux alone
tells who holds a lock, in ``/proc``, at no cost to the holder; elsewhere the answer is no.
"""

from __future__ import annotations

import os
from pathlib import Path

from tracker.clock import monotonic

_PATIENCE_SECONDS = 10.0
"""How long a holder must have been found stopped: a debugger stops one for moments."""
_STATES = ("T", "t")
_LOCKS = Path("/proc/locks")


class StoppedHolder:
    """Watches whoever holds a lock on a file, from one look to the next.

    Args:
        path: The lock file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: tuple[int, float] | None = None

    def look(self) -> bool:
        """Tell whether one process has held the lock and been stopped for long, at each look."""
        holder = _stopped_holder(self._path)
        now = monotonic()
        if holder is None or self._found is None or self._found[0] != holder:
            self._found = None if holder is None else (holder, now)
            return False
        return now - self._found[1] >= _PATIENCE_SECONDS


def _stopped_holder(path: Path) -> int | None:
    """Return the process that holds a ``flock`` on the file and is stopped, or None."""
    try:
        file = path.stat()
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        # "3: FLOCK  ADVISORY  WRITE 20592 fe:00:2247864 0 EOF"; those who wait have "->" there.
        _, kind, _, _, pid, place, *_ = [*line.split(), *[""] * 6]
        # Numbers of devices differ from stat's on some file systems: see what it has open, but
        # only once it is stopped, for a server may have thousands of files open.
        ours = kind == "FLOCK" and place.endswith(f":{file.st_ino}")
        if ours and _is_stopped(pid) and _has_open(pid, file):
            return int(pid)
    return None


def _is_stopped(pid: str) -> bool:
    try:
        status = Path("/proc", pid, "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].lstrip()[:1] in _STATES


def _has_open(pid: str, file: os.stat_result) -> bool:
    try:
        return any(
            os.path.samestat(descriptor.stat(), file)
            for descriptor in Path("/proc", pid, "fd").iterdir()
            if descriptor.exists()
        )
    except OSError:  # another user's, or just gone
        return False

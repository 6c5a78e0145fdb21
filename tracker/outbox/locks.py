"""Locks between processes: ``flock`` on files that lie beside the outbox.

The kernel frees such a lock the moment its owner dies, however it dies.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from tracker.errors import ConfigurationError, OutboxError

if TYPE_CHECKING:
    from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    raise ConfigurationError(
        "tracker needs the file locks of a POSIX system (Linux, macOS, BSD)"
    ) from None


class FileLock:
    """An exclusive lock that one holder at a time has, over all processes.

    Owns one file descriptor, opened on first use. Not reentrant and not for several threads at
    once: its user serialises its own threads. A forked child must call `forget`.

    Args:
        path: The file; it is made if it is not there.
        mark: What an empty file gets for content.
    """

    def __init__(self, path: Path, mark: bytes = b"") -> None:
        self.path = path
        self._mark = mark
        self._descriptor: int | None = None
        self.held = False

    def acquire(self) -> None:
        """Wait until the lock is free and take it. The wait is the kernel's, first come first."""
        fcntl.flock(self._descriptor or self._open(), fcntl.LOCK_EX)
        self.held = True

    def try_acquire(self) -> bool:
        """Take the lock if it is free; tell whether it is now held."""
        if not self.held:
            try:
                fcntl.flock(self._open(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self.held = True
        return True

    def is_replaced(self) -> bool:
        """Tell whether the file at the path is another one than is open here, or none.

        A lock file that was deleted or replaced keeps apart only those who have it open still;
        its user should `close` it and take the lock anew.
        """
        descriptor = self._descriptor
        if descriptor is None:
            return False
        try:
            return not os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return True

    def release(self) -> None:
        """Free the lock, if held."""
        self.held = False
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Free the lock and close the file. A later `acquire` opens it again."""
        self.release()  # closing would not do: a forked child may have the open file too
        self.forget()

    def forget(self) -> None:
        """Close an inherited descriptor in a forked child, without freeing the parent's lock."""
        descriptor, self._descriptor, self.held = self._descriptor, None, False
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(
                    self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
            except OSError as error:
                raise OutboxError(
                    f"the lock file {self.path} cannot be opened: {error.strerror}"
                ) from error
            if self._mark and not os.fstat(self._descriptor).st_size:
                with contextlib.suppress(OSError):  # a full disk: the lock works without
                    os.write(self._descriptor, self._mark)
        return self._descriptor

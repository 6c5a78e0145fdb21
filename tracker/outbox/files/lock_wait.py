"""`LockWait`: waiting for a lock file in another thread, so that a call can give up."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import sys
from typing import TYPE_CHECKING

from tracker.clock import monotonic, sleep
from tracker.frames import is_executing
from tracker.wakeup import Wakeup

if TYPE_CHECKING:
    import queue
    from types import FrameType

_POLL_SECONDS = 0.01
_SERVED_SECONDS = 0.25
"""How often a waiting call checks that its helper thread is still waiting for it."""


_never_closed: list[LockFile] = []


class LockFile(io.FileIO):
    """An open lock file.

    An object rather than a number, because the number may mean another file once this one is
    closed; and the interpreter closes an object that an interrupted call no longer refers to, in a
    single step.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "r+")
        self.mark = os.fstat(descriptor)[1:4]

    def discard(self) -> None:
        """Close it. Processes that inherited it keep it open, and keep the lock if it is held."""
        with contextlib.suppress(OSError):  # other code in this process closed it
            self.close()

    def let_go(self) -> None:
        """Never close it: other code in this process did, and its number may be another file's."""
        _never_closed.append(self)

    def free(self) -> None:
        """Release the lock if this file holds it, for processes that inherited the file as well."""
        try:  # takes half as long as `suppress`
            fcntl.flock(self, fcntl.LOCK_UN)
        except (OSError, ValueError):
            return  # closed, by us or by other code in this process; or there are no locks here

    def is_lost(self) -> bool:
        """Return True if other code in this process has closed its descriptor."""
        try:
            return os.fstat(self.fileno())[1:3] != self.mark[:2]
        except OSError:
            return True
        except ValueError:  # closed by us
            return False


class LockWait:
    """One wait for a lock, in another thread, so that the caller can give up.

    ``flock`` has no timeout, and a caller that polls instead of waiting is served last, which makes
    the slowest calls of many processes ten times as slow. Each wait has its own file, because one
    lock must not be waited for and released through the same file. With the lock, the file passes
    to the caller; after `give_up`, it is released as soon as the kernel grants it.

    Attributes:
        file: The file that will hold the lock.
        pending: Whether the kernel may still grant it after the caller has given up.
    """

    def __init__(self, file: LockFile) -> None:
        self.file = file
        self._error: OSError | None = None
        self._answered = Wakeup()
        self._frame: FrameType | None = None  # of `run`, while it is running
        self._over = self._given_up = False

    @property
    def pending(self) -> bool:
        """Whether the kernel may still grant the lock after the caller has given up."""
        return self._given_up and self._is_served() and not self._over

    def _is_served(self) -> bool:
        """Return True if the thread is still waiting: an exception raised in it would end that."""
        frame = self._frame
        return frame is not None and is_executing(frame)

    def run(self) -> None:
        """Wait; then hand the lock over, or release it if the caller has given up."""
        self._frame = sys._getframe()
        try:
            if not self._given_up:
                fcntl.flock(self.file, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        self._over = True
        if self._given_up:  # seen here, or else by `give_up`, which then releases it
            self._free()
        self._answered.set()
        self._frame = None

    def answer(self, end: float) -> bool | None:
        """Return True if the lock was granted by `end`, None if the thread does not wait for it."""
        while (left := end - monotonic()) > 0:
            if self._answered.wait(min(left, _SERVED_SECONDS)):
                if self._error is not None:
                    raise self._error
                return not self._given_up
            if not (self._over or self._is_served()):
                return None
        return False

    def poll(self, end: float) -> bool:
        """Do the same without a thread, by asking again and again."""
        while not self._given_up:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic() >= end:
                    return False
                sleep(_POLL_SECONDS)
            else:
                return True
        return False

    def give_up(self) -> None:
        """Stop wanting the lock, granted or not. Calling this again is harmless."""
        self._given_up = True
        if self._over or not self._is_served():
            self._free()
        self._answered.set()

    def _free(self) -> None:
        self.file.free()  # a forked child may have the open file too
        self.file.discard()


def serve(waits: queue.SimpleQueue[LockWait | None]) -> None:
    """Run waits one after the other until None arrives. This is the work of a lock's thread."""
    while (wait := waits.get()) is not None:
        wait.run()

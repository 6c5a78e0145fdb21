"""`LockWait`: waiting for a lock file in another thread, so that a call can give up."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import queue
import sys
from typing import TYPE_CHECKING

from tracker.clock import monotonic, sleep
from tracker.frames import is_executing

if TYPE_CHECKING:
    from types import FrameType

_POLL_SECONDS = 0.01
_SERVED_SECONDS = 0.25
"""How often a wait looks whether its thread is still at it."""


class LockFile(io.FileIO):
    """An open lock file.

    As an object, not as a number: a number may name another file once this one is closed. And one
    that the interpreter closes in a single step when an interrupted call no longer refers to it.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "r+")
        self.mark = os.fstat(descriptor)[1:4]

    def discard(self) -> None:
        """Close it. Processes that inherited it keep it open, and keep the lock if it is held."""
        with contextlib.suppress(OSError):  # another part of the process closed it
            self.close()

    def free(self) -> None:
        """Free the lock, if it is held by this file, also for those that inherited it."""
        try:  # in half the time of `suppress`
            fcntl.flock(self, fcntl.LOCK_UN)
        except (OSError, ValueError):
            return  # closed, by us or by another part of the process, or there are no locks here

    def is_lost(self) -> bool:
        """Return True if another part of this process has closed its descriptor."""
        try:
            return os.fstat(self.fileno())[1:3] != self.mark[:2]
        except OSError:
            return True
        except ValueError:  # closed by us
            return False


class LockWait:
    """One wait for a lock, in another thread, so that whoever asked can give up.

    ``flock`` knows no timeout, and whoever asks again and again in place of waiting comes last,
    which makes the slowest of many processes' calls ten times as slow. Each wait has a file of its
    own: one lock must not be waited for and freed through the same. It goes to the caller with the
    lock; after `give_up`, it is freed as soon as the kernel grants it.

    Attributes:
        file: What the lock will be held by.
        pending: Whether the kernel may still grant it, though the caller has given up.
    """

    def __init__(self, file: LockFile) -> None:
        self.file = file
        self._error: OSError | None = None
        self._answered: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._frame: FrameType | None = None  # of `run`, as long as it is under way
        self._over = self._given_up = False

    @property
    def pending(self) -> bool:
        """Whether the kernel may still grant the lock, though the caller has given up."""
        return self._given_up and self._is_served() and not self._over

    def _is_served(self) -> bool:
        """Return True if the thread is at it: an exception raised in the thread ends that."""
        frame = self._frame
        return frame is not None and is_executing(frame)

    def run(self) -> None:
        """Wait, and hand the lock over, or free it if nobody wants it any more."""
        self._frame = sys._getframe()
        try:
            if not self._given_up:
                fcntl.flock(self.file, fcntl.LOCK_EX)
        except OSError as error:
            self._error = error
        self._over = True
        if self._given_up:  # seen here or, if it comes later, by `give_up`, which then frees it
            self._free()
        self._answered.put(None)
        self._frame = None

    def answer(self, end: float) -> bool | None:
        """Return True if the lock was granted by then, None if the thread is not at it."""
        while (left := end - monotonic()) > 0:
            try:
                self._answered.get(timeout=min(left, _SERVED_SECONDS))
            except queue.Empty:
                if not (self._over or self._is_served()):
                    return None
                continue
            if self._error is not None:
                raise self._error
            return not self._given_up
        return False

    def poll(self, end: float) -> bool:
        """Do the same without a thread."""
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
        """Want the lock no more, granted or not. Calling it again is harmless."""
        self._given_up = True
        if self._over or not self._is_served():
            self._free()
        self._answered.put(None)

    def _free(self) -> None:
        self.file.free()  # a forked child may have the open file too
        self.file.discard()


def serve(waits: queue.SimpleQueue[LockWait | None]) -> None:
    """Run waits one after the other until None comes: what the thread of a lock does."""
    while (wait := waits.get()) is not None:
        wait.run()

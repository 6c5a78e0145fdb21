"""`Wakeup`: what one call waits for and others set, also in a signal handler."""

from __future__ import annotations

from threading import Lock


class Wakeup:
    """A flag that one thread waits for, at most for a time, and that its wait takes back.

    `set` may interrupt itself: `threading.Event` has a lock that a signal handler would wait for.
    And the wait ends in time: that of `queue.SimpleQueue`, up to Python 3.12, never ends if a
    signal handler still runs when it should, for the time that is left is then negative.

    Owns a lock, which is held until the flag is set, by no thread in particular.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let the wait end, or the next one if there is none. This is very cheap."""
        try:
            self._lock.release()
        except RuntimeError:  # it is set already
            return

    def wait(self, seconds: float) -> bool:
        """Wait until the flag is set, at most for so many seconds (0 or more); then clear it.

        Returns False if it was not set.
        """
        return self._lock.acquire(timeout=seconds)

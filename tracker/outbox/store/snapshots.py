"""Counting the long reads under way, so that a fork or a close can wait for their end."""

from __future__ import annotations

import threading


class Snapshots:
    """Counts the threads that read on separate connections. Owns the condition they signal."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def begin(self) -> None:
        """Count one more read."""
        with self._changed:
            self._count += 1

    def end(self) -> None:
        """Count one read less."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def await_end(self, seconds: float) -> bool:
        """Wait at most `seconds` until no read is under way; return True if none is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, timeout=seconds)

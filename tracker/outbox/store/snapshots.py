"""Counting the long reads under way, so that a fork or a close can wait for their end."""

from __future__ import annotations

import threading


class Snapshots:
    """How many threads read on connections of their own. Owns the condition they meet at."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def begin(self) -> None:
        """Count a read."""
        with self._changed:
            self._count += 1

    def end(self) -> None:
        """Count a read less."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def await_end(self, seconds: float) -> bool:
        """Wait until no read is under way, at most so long; tell whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, timeout=seconds)

"""UUIDv7 identifiers that stay monotonic within a process."""

from __future__ import annotations

import os
import threading
import time

from tracker.forks import Stage, check, in_child

# RFC 9562, section 5.7: 48 bits of Unix milliseconds, 4 of version, 12 of "rand_a",
# 2 of variant, 62 of "rand_b". Section 6.2, method 1: rand_a serves as a counter.
_COUNTER_BITS = 12
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""A random hex digit with its upper two bits set to the variant's, binary 10."""


class IdSource:
    """Makes UUIDv7 ids, each greater than the one before, even when the clock steps back.

    Owns its lock, which is reentrant so that a signal handler that logs while an id is being
    made cannot block the thread it interrupted.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._last = 0  # milliseconds << 12 | counter

    def new(self) -> str:
        """Return the next id in the usual 36-character form."""
        check()  # first of all: in such a child nobody may ever free the lock
        now = (time.time_ns() // 1_000_000) << _COUNTER_BITS
        with self._lock:
            self._last = stamp = max(now, self._last + 1)
        # Version and variant are put in as digits: by way of uuid.UUID it takes four times as long.
        time_ = f"{stamp:015x}"
        random = os.urandom(8).hex()
        return (
            f"{time_[:8]}-{time_[8:12]}-7{time_[12:]}"
            f"-{_VARIANT[random[0]]}{random[1:4]}-{random[4:]}"
        )


_process_ids = IdSource()


new_id = _process_ids.new
"""Returns a UUIDv7 string from this process's one source."""


def _renew_lock_after_fork() -> None:
    # Another thread of the parent may have held the lock; nobody would release it here.
    _process_ids._lock = threading.RLock()


in_child(Stage.IDS, _renew_lock_after_fork)

"""UUIDv7 identifiers that stay monotonic within a process."""

from __future__ import annotations

import os
import threading
import time

from tracker.forks import Stage, check, in_child

# RFC 9562, section 5.7: 48 bits of Unix milliseconds, 4 of version, 12 of "rand_a",
# 2 of variant, 62 of "rand_b". Section 6.2, method 1: rand_a is used as a counter.
_COUNTER_BITS = 12
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""Maps a random hex digit to one whose upper two bits are the variant's, binary 10."""


class IdSource:
    """Makes UUIDv7 ids, each greater than the one before, even if the clock is set back.

    Owns its lock, which is reentrant: a signal handler may log while the thread that it interrupts
    is making an id.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._last = 0  # milliseconds << 12 | counter

    def new(self) -> str:
        """Return the next id in the usual form of 36 characters."""
        return self.new_with_salt()[0]

    def new_with_salt(self) -> tuple[str, bytes]:
        """Return the next id, and 16 random bytes, drawn together: that saves a system call."""
        check()  # first, since in a forked child the lock might never be released
        now = (time.time_ns() // 1_000_000) << _COUNTER_BITS
        with self._lock:
            self._last = stamp = max(now, self._last + 1)
        # Version and variant are inserted as digits: uuid.UUID would take four times as long.
        time_ = f"{stamp:015x}"
        drawn = os.urandom(24)
        random = drawn[:8].hex()
        return (
            f"{time_[:8]}-{time_[8:12]}-7{time_[12:]}"
            f"-{_VARIANT[random[0]]}{random[1:4]}-{random[4:]}"
        ), drawn[8:]


_process_ids = IdSource()


new_id = _process_ids.new
"""Returns a new UUIDv7 string; there is one source per process."""
new_id_and_salt = _process_ids.new_with_salt
"""Returns a new UUIDv7 string and a salt of 16 bytes."""


def _renew_lock_after_fork() -> None:
    # Another thread of the parent may have held the lock; nothing would release it here.
    _process_ids._lock = threading.RLock()


in_child(Stage.IDS, _renew_lock_after_fork)

"""UUIDv7 identifiers that stay monotonic within a process."""

from __future__ import annotations

import os
import threading
import time

# RFC 9562, section 5.7: 48 bits of Unix milliseconds, 4 of version, 12 of "rand_a",
# 2 of variant, 62 of "rand_b". Section 6.2, method 1: rand_a serves as a counter.
_COUNTER_BITS = 12
_VARIANT = 0b10 << 62


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
        now = (time.time_ns() // 1_000_000) << _COUNTER_BITS
        with self._lock:
            self._last = stamp = max(now, self._last + 1)
        milliseconds, counter = stamp >> _COUNTER_BITS, stamp & 0xFFF
        random = int.from_bytes(os.urandom(8), "big") >> 2 | _VARIANT
        # By way of uuid.UUID it would take three times as long, as an f-string twice.
        return "%08x-%04x-7%03x-%04x-%012x" % (  # noqa: UP031 - for speed, see above
            milliseconds >> 16,
            milliseconds & 0xFFFF,
            counter,
            random >> 48,
            random & 0xFFFFFFFFFFFF,
        )


_process_ids = IdSource()


def new_id() -> str:
    """Return a UUIDv7 string from this process's one source."""
    return _process_ids.new()


def _renew_lock_after_fork() -> None:
    # Another thread of the parent may have held the lock; nobody would release it here.
    _process_ids._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock_after_fork)

"""Events that wait in memory while the outbox cannot be written."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from sys import getsizeof
from typing import TYPE_CHECKING

from tracker import log
from tracker.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracker.errors import OutboxError
    from tracker.events import Event

_ENVELOPE_BYTES = 1_024
"""About what an event takes in memory besides its data: ids, digest, and Python's objects."""


class MemoryBuffer:
    """A bounded queue of events that are not on disk yet; the one place where a crash loses them.

    Owns its events, and `lock`, which whoever writes them out holds meanwhile. Holding an event
    takes no lock, so that a signal handler and a leading writer may do it at any moment. What does
    not fit, by number or by size, is counted in `lost`, and the count goes into the outbox's
    account once that works.

    Attributes:
        retry_seconds: How long after a failure the disk is not tried again.
        say_again_seconds: How long after a failure was logged the next one is not: a disk that
            fails now and then must not fill the log.
    """

    retry_seconds = 1.0
    say_again_seconds = 60.0

    def __init__(self, capacity: int, most_bytes: int) -> None:
        self._capacity = capacity
        self._most_bytes = most_bytes
        self._bytes = 0
        self.lock = threading.RLock()
        self.events: deque[Event] = deque()
        self.lost = 0
        self._retry_at = 0.0
        self._said_failing = self._said_full = False
        self._say_at = 0.0

    def __len__(self) -> int:
        return len(self.events)

    @property
    def in_use(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self.events or self.lost)

    def should_retry(self) -> bool:
        """Tell whether it is time to try the disk again: at most once a second."""
        return monotonic() >= self._retry_at

    def hold(self, event: Event) -> None:
        """Keep `event`, or count it as lost if there is no room."""
        size = _size(event)
        if len(self.events) < self._capacity and self._bytes + size <= self._most_bytes:
            self._bytes += size
            self.events.append(event)
            return
        self.lost += 1
        if not self._said_full:
            self._said_full = True
            log.error(
                "the outbox cannot be written and the memory buffer is full (%d events): "
                "further events are lost, and counted",
                len(self.events),
            )

    def held(self) -> tuple[list[Event], int]:
        """Return everything held, in order, and how many events were lost."""
        return list(self.events), self.lost

    def written(self, events: Sequence[Event], lost: int) -> None:
        """Forget `events` and the count of `lost` ones, now that they are on disk.

        Those that a call inside this one has forgotten already are passed over; what an
        interruption keeps is written once more, and found to be stored.
        """
        self.lost -= lost
        for event in events:
            with contextlib.suppress(ValueError):
                self.events.remove(event)
        self._bytes = sum(map(_size, list(self.events)))  # whatever was cut off in counting
        if not self.in_use:
            if self._said_failing or self._said_full:
                log.warning(
                    "the outbox can be written again; %d events came from memory", len(events)
                )
            self._said_failing = self._said_full = False

    def note_failure(self, error: OutboxError) -> None:
        """Wait before the next try; say why, the first time, and not again soon after its end."""
        now = monotonic()
        if not self._said_failing and now >= self._say_at:
            self._said_failing, self._say_at = True, now + self.say_again_seconds
            log.error(
                "the outbox cannot be written; up to %d events wait in memory until it can: %s",
                self._capacity,
                error,
            )
        self._retry_at = now + self.retry_seconds


def _size(event: Event) -> int:
    """Return about how many bytes an event takes in memory."""
    return _ENVELOPE_BYTES + getsizeof(event.data)

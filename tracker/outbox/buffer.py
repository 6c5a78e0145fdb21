"""Events that wait in memory while the outbox cannot be written."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker.errors import OutboxError
    from tracker.events import Event

_RETRY_SECONDS = 1.0

_logger = logging.getLogger("tracker")


class MemoryBuffer:
    """A bounded queue of events that are not on disk yet; the one place where a crash loses them.

    Owns its lock and its events. Whoever drains takes everything at once and puts back what could
    not be written. What does not fit is counted in `lost`, and the count goes to the outbox's
    account once that works again.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.lock = threading.RLock()
        self._events: deque[Event] = deque()
        self.lost = 0
        self._retry_at = 0.0
        self._failing = False

    def __len__(self) -> int:
        return len(self._events)

    @property
    def in_use(self) -> bool:
        """Whether anything waits to be written, a count of lost events included."""
        return self._failing

    def should_retry(self) -> bool:
        """Tell whether it is time to try the disk again: at most once a second."""
        return time.monotonic() >= self._retry_at

    def hold(self, event: Event, error: OutboxError | None) -> None:
        """Keep `event`, or count it as lost if there is no room."""
        with self.lock:
            if error is not None:
                self._note_failure(error)
            self._failing = True
            if len(self._events) < self._capacity:
                self._events.append(event)
                return
            self.lost += 1
            if self.lost == 1:
                _logger.error(
                    "the outbox cannot be written and the memory buffer is full (%d events): "
                    "further events are lost, and counted",
                    self._capacity,
                )

    def take(self) -> tuple[list[Event], int]:
        """Hand out everything held, and the count of lost events; `put_back` undoes it."""
        with self.lock:
            events, lost = list(self._events), self.lost
            self._events.clear()
            self.lost = 0
            self._failing = False
            return events, lost

    def put_back(self, events: list[Event], lost: int, error: OutboxError) -> None:
        """Return what `take` gave, ahead of what came meanwhile."""
        with self.lock:
            self._events.extendleft(reversed(events))
            self.lost += lost
            self._failing = True
            self._note_failure(error)

    def note_success(self, written: int) -> None:
        """Say once that the trouble is over."""
        _logger.warning("the outbox can be written again; %d events came from memory", written)

    def _note_failure(self, error: OutboxError) -> None:
        if not self._failing:
            _logger.error(
                "the outbox cannot be written; up to %d events wait in memory until it can: %s",
                self._capacity,
                error,
            )
        self._retry_at = time.monotonic() + _RETRY_SECONDS

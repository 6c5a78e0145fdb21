"""Events that wait in memory while the outbox cannot be written."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker.errors import OutboxError
    from tracker.events import Event

_RETRY_SECONDS = 1.0

_logger = logging.getLogger("tracker")


class MemoryBuffer:
    """A bounded queue of events that are not on disk yet; the one place where a crash loses them.

    Owns its events and `lock`, which whoever writes them out holds meanwhile, so that events that
    come later do not get ahead. What does not fit is counted in `lost`, and the count goes into
    the outbox's account once that works again.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.lock = threading.RLock()
        self._events: list[Event] = []
        self._lost = 0
        self._retry_at = 0.0
        self.in_use = False

    def __len__(self) -> int:
        return len(self._events)

    def should_retry(self) -> bool:
        """Tell whether it is time to try the disk again: at most once a second."""
        return time.monotonic() >= self._retry_at

    def hold(self, event: Event, error: OutboxError | None) -> None:
        """Keep `event`, or count it as lost if there is no room; `error` is why, if new."""
        with self.lock:
            if error is not None:
                self.note_failure(error)
            if len(self._events) < self._capacity:
                self._events.append(event)
                return
            self._lost += 1
            if self._lost == 1:
                _logger.error(
                    "the outbox cannot be written and the memory buffer is full (%d events): "
                    "further events are lost, and counted",
                    self._capacity,
                )

    def held(self) -> tuple[list[Event], int]:
        """Return everything held, in order, and how many events were lost."""
        return list(self._events), self._lost

    def clear(self) -> None:
        """Forget everything, now that it is written, and say that the trouble is over."""
        _logger.warning(
            "the outbox can be written again; %d events came from memory", len(self._events)
        )
        self._events.clear()
        self._lost = 0
        self.in_use = False

    def note_failure(self, error: OutboxError) -> None:
        """Wait before the next try; say why, the first time."""
        if not self.in_use:
            self.in_use = True
            _logger.error(
                "the outbox cannot be written; up to %d events wait in memory until it can: %s",
                self._capacity,
                error,
            )
        self._retry_at = time.monotonic() + _RETRY_SECONDS

"""Events in memory, while the outbox cannot be written."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from sys import getsizeof
from typing import TYPE_CHECKING

from tracker import log
from tracker.clock import monotonic
from tracker.once import Once
from tracker.outbox.store.ledger import BY_BUFFER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tracker.errors import OutboxError
    from tracker.events import Event

_ENVELOPE_BYTES = 1_024
"""About how much memory an event takes besides its data: ids, digest, and Python's objects."""


class MemoryBuffer:
    """A bounded queue of events that are not on disk yet; the only place where a crash loses them.

    Owns its events, and `lock`, which is held while they are written to the outbox. Holding an
    event takes no lock, so that a signal handler and a leading writer may do it at any moment.
    Events that are given up without a seq, because they do not fit or the application's hook
    dropped them, are counted in `discarded` by reason, and added to the outbox's account once that
    is possible.

    Attributes:
        retry_seconds: How long to wait after a failure before the disk is tried again.
        say_again_seconds: How long not to log failures after one was logged: a disk that often
            fails must not fill the log.
    """

    retry_seconds = 1.0
    say_again_seconds = 60.0

    def __init__(self, capacity: int, most_bytes: int) -> None:
        self._capacity = capacity
        self._most_bytes = most_bytes
        self._bytes = 0
        self.lock = threading.RLock()
        self.events: deque[Event] = deque()
        self.discarded: dict[str, int] = {}
        self._retry_at = 0.0
        self._said_failing = self._said_full = False
        self._often = Once(seconds=self.say_again_seconds)

    def __len__(self) -> int:
        return len(self.events)

    @property
    def in_use(self) -> bool:
        """Whether events or a count of discarded ones wait to be written."""
        return bool(self.events or self.discarded)

    def should_retry(self) -> bool:
        """Return True if it is time to try the disk again: at most once a second."""
        return monotonic() >= self._retry_at

    def hold(self, event: Event) -> None:
        """Keep `event`, or count it as discarded if there is no room."""
        size = _size(event)
        if len(self.events) < self._capacity and self._bytes + size <= self._most_bytes:
            self._bytes += size
            self.events.append(event)
            return
        self.discard(BY_BUFFER)
        if not self._said_full:
            self._said_full = True
            log.error(
                "the outbox cannot be written and the memory buffer is full (%d events): "
                "further events are lost, and counted",
                len(self.events),
            )

    def discard(self, reason: str) -> None:
        """Count an event that is given up without a seq."""
        self.discarded[reason] = self.discarded.get(reason, 0) + 1

    def held(self) -> tuple[list[Event], dict[str, int]]:
        """Return everything held, in order, and how many events are discarded by reason."""
        return list(self.events), dict(self.discarded)

    def written(self, events: Sequence[Event], discarded: Mapping[str, int]) -> None:
        """Forget `events` and the counts of `discarded` ones, now that they are on disk.

        Events that a call inside this one has already removed are skipped; if an interruption
        leaves some, they are written once more, and found to be stored already.
        """
        for reason, count in discarded.items():
            left = self.discarded.pop(reason, 0) - count
            if left > 0:
                self.discarded[reason] = left
        for event in events:
            with contextlib.suppress(ValueError):
                self.events.remove(event)
        self._bytes = sum(map(_size, list(self.events)))  # even if counting was interrupted
        if not self.in_use:
            if self._said_failing or self._said_full:
                log.warning(
                    "the outbox can be written again; %d events from memory are stored", len(events)
                )
            self._said_failing = self._said_full = False

    def note_failure(self, error: OutboxError) -> None:
        """Wait before the next try; log the first failure, and later ones not too often."""
        if not self._said_failing and self._often.is_new():
            self._said_failing = True
            log.error(
                "the outbox cannot be written; up to %d events are kept in memory until it can: %s",
                self._capacity,
                error,
            )
        self._retry_at = monotonic() + self.retry_seconds


def _size(event: Event) -> int:
    """Return about how much memory an event takes, in bytes."""
    return _ENVELOPE_BYTES + getsizeof(event.data)

"""The size of batches, learned from the answers. It has no clock and does no I/O."""

from __future__ import annotations

_PROBE_EVERY = 100


class Sizing:
    """The limits of the next batch.

    Batches become smaller than the configured limits for three reasons. A batch that the server
    calls invalid is halved until the invalid event is alone. A batch that is too large for the
    server is halved, and the accepted size is remembered, but doubled again as a trial every
    hundred batches. A batch that timed out is halved until one gets through, and doubled again as
    long as that works.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._server_bytes = max_bytes
        self._configured_bytes = max_bytes
        self._link_bytes = max_bytes
        self._known_bad = 0
        self._passed_at_bound = 0

    @property
    def max_events(self) -> int:
        """Maximum number of events in the next batch."""
        return max(1, self._known_bad // 2) if self._known_bad else self._max_events

    @property
    def max_bytes(self) -> int:
        """Maximum size of the next batch in bytes; a single event may exceed it."""
        return min(self._server_bytes, self._link_bytes)

    def passed(self, events: int) -> None:
        """Note that the first `events` pending events are settled."""
        self._known_bad = max(0, self._known_bad - events)
        self._link_bytes = min(self._configured_bytes, self._link_bytes * 2)
        self._passed_at_bound += self._server_bytes < self._configured_bytes
        if self._passed_at_bound >= _PROBE_EVERY:
            self._passed_at_bound = 0
            self._server_bytes = min(self._configured_bytes, self._server_bytes * 2)

    def invalid(self, events: int) -> None:
        """Note that one of the first `events` pending events is invalid."""
        self._known_bad = events

    def found(self) -> None:
        """Note that the invalid event was found and is settled."""
        self._known_bad = 0

    def too_large(self, size: int) -> None:
        """Note that the server does not accept `size` bytes."""
        self._server_bytes = max(1, size // 2)
        self._passed_at_bound = 0

    def timed_out(self, size: int) -> None:
        """Note that a batch of `size` bytes was not answered in time."""
        self._link_bytes = max(1, min(size, self._link_bytes) // 2)

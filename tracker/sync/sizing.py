"""How much to send at once, learned from the answers. Pure: no clock, no I/O."""

from __future__ import annotations

_PROBE_EVERY = 100


class Sizing:
    """The bounds of the next batch.

    Three things make batches smaller than the configured bounds: a batch that the server calls
    invalid is halved until the one bad event stands alone; a batch too large for the server is
    halved and the size that passes is remembered, but doubled as a trial every hundred batches,
    lest one bad day cost requests for ever; and a batch that timed out is halved until the
    link carries it, and doubled again as it does.
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
        """Events that the next batch may have."""
        return max(1, self._known_bad // 2) if self._known_bad else self._max_events

    @property
    def max_bytes(self) -> int:
        """Bytes that the next batch may have; a single event may exceed it."""
        return min(self._server_bytes, self._link_bytes)

    def passed(self, events: int) -> None:
        """Note that the first `events` pending ones are settled."""
        self._known_bad = max(0, self._known_bad - events)
        self._link_bytes = min(self._configured_bytes, self._link_bytes * 2)
        self._passed_at_bound += self._server_bytes < self._configured_bytes
        if self._passed_at_bound >= _PROBE_EVERY:
            self._passed_at_bound = 0
            self._server_bytes = min(self._configured_bytes, self._server_bytes * 2)

    def invalid(self, events: int) -> None:
        """Note that a bad one is among the first `events` pending ones."""
        self._known_bad = events

    def found(self) -> None:
        """Note that the bad event stood alone and is out of the way."""
        self._known_bad = 0

    def too_large(self, size: int) -> None:
        """Note that the server will not take `size` bytes."""
        self._server_bytes = max(1, size // 2)
        self._passed_at_bound = 0

    def timed_out(self, size: int) -> None:
        """Note that `size` bytes were not answered in time."""
        self._link_bytes = max(1, min(size, self._link_bytes) // 2)

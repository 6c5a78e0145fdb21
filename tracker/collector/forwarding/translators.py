"""`Translators`: the mappers of many outboxes, each as on the device that the outbox is on."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from tracker.collector.forwarding.arrivals import ReceivedHistory
from tracker.otlp import names
from tracker.otlp.encode import Source
from tracker.otlp.mapper import SCOPE, Mapper
from tracker.otlp.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tracker.collector.forwarding.positions import Target
    from tracker.otlp.encode import Signal
    from tracker.otlp.mapper import Message

_MOST_OUTBOXES = 2_000
_MOST_SIZE = 64 * 1024 * 1024
"""Of how many outboxes, and about how many characters of their conversations, are in memory."""
_NAME = "tracker-collector"


class Translators:
    """Makes of an event the spans and log records that its own device would make of it.

    Args:
        logs: Whether some types of events become log records instead of spans.
    """

    def __init__(self, *, logs: bool) -> None:
        self._logs = logs
        self._mappers: OrderedDict[tuple[str, str], Mapper] = OrderedDict()
        self._begun: set[tuple[str, str]] = set()
        self._connection: Connection | None = None

    @contextlib.contextmanager
    def reading(self, connection: Connection) -> Iterator[None]:
        """Read what came before an event in this transaction, within the block."""
        self._connection = connection
        try:
            yield
        finally:
            self._connection = None

    def begin(self) -> None:
        """Begin a batch."""
        self._begun.clear()
        kept = sum(mapper.size for mapper in self._mappers.values())
        while len(self._mappers) > _MOST_OUTBOXES or (kept > _MOST_SIZE and self._mappers):
            kept -= self._mappers.popitem(last=False)[1].size

    def signal(self, event: dict[str, Any]) -> Signal:
        """Return what an event becomes."""
        return self._mapper(event).signal(event)

    def pass_over(self, event: dict[str, Any]) -> None:
        """Note an event that is not sent."""
        self._mapper(event).pass_over(event)

    def messages(self, event: dict[str, Any]) -> list[tuple[Source, Message]]:
        """Return what an event is sent as: at least one message."""
        return self._mapper(event).messages(event)

    def _mapper(self, event: dict[str, Any]) -> Mapper:
        """Return the mapper of an event's outbox, which has begun the present batch."""
        outbox = (event["client_id"], event["outbox_id"])
        mapper = self._mappers.pop(outbox, None)
        if mapper is None:
            client_id, outbox_id = outbox
            resource = {names.SERVICE_NAME: client_id, names.SERVICE_INSTANCE_ID: outbox_id}
            history = ReceivedHistory(self._current, client_id, outbox_id)
            mapper = Mapper(client_id, resource, history, logs=self._logs)
        self._mappers[outbox] = mapper
        if outbox not in self._begun:
            mapper.begin()
            self._begun.add(outbox)
        return mapper

    def _current(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("events are translated outside of `reading`")
        return self._connection


def probe_of(target: Target, created_at_ms: int) -> Probe:
    """Return what the receiver of a target is tried with."""
    source = Source({"attributes": {names.SERVICE_NAME: _NAME}}, SCOPE)
    return Probe(_NAME, "\n".join(target), created_at_ms, source)

"""Makes a `Batch` of the spans or log records of one request."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from tracker import canonical
from tracker.collector import derived
from tracker.collector.batch import Batch, InvalidEventError, ReceivedEvent, Rejection
from tracker.collector.otlp import logs, spans
from tracker.collector.otlp.signals import TRACES
from tracker.collector.refusal import too_large
from tracker.collector.seals import packed
from tracker.events import OTEL_LOG, OTEL_SPAN
from tracker.otel import concerned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracker.collector.otlp.body import Item
    from tracker.collector.otlp.signals import Signal

_NANOSECONDS = 1_000_000
"""In a millisecond."""
MOST_EVENT_BYTES = 4 * 1024 * 1024
"""Largest span or log record as JSON, with its resource; none of an outbox is larger."""
MOST_BYTES = 32 * 1024 * 1024
"""Largest request as JSON, in which each event repeats its resource."""
_ROW_BYTES = 512
_PLACE = ("trace_id", "span_id", "parent_span_id")
MOST_NOTED = 500
"""Rejections of one request that are noted."""


class Gathering:
    """Gathers what a client's request carries.

    Args:
        client_id: The client.
        signal: What the request carries.
        now_ms: The time of receipt, Unix milliseconds.
    """

    def __init__(self, client_id: str, signal: Signal, now_ms: int) -> None:
        self._client_id = client_id
        self._signal = signal
        self._now_ms = now_ms
        self._origin: tuple[Any, Any, dict[str, Any]] | None = None
        self._bytes = 0
        self._repeated: Counter[str] = Counter()
        self._events: list[ReceivedEvent] = []
        self._problems: Counter[str] = Counter()
        self._rejected: list[Rejection] = []

    @property
    def rejected(self) -> int:
        """How many items cannot be stored."""
        return self._problems.total()

    @property
    def message(self) -> str:
        """How many of them have which problem."""
        told = [f"{count} ({problem})" for problem, count in self._problems.most_common(5)]
        return f"Not stored: {'; '.join(told)}."

    def add(self, items: Iterable[Item]) -> None:
        """Add all of a request.

        Raises:
            RefusedError: 400 or 413 if the request as a whole cannot be stored.
        """
        for item in items:
            self._count(_ROW_BYTES)
            try:
                self._add(item)
            except InvalidEventError as error:
                self._reject(item, error)

    def batch(self) -> Batch:
        """Return what was gathered."""
        return Batch(
            self._client_id,
            derived.outbox_id_of(self._client_id),
            self._now_ms,
            tuple(self._events),
            tuple(self._rejected),
            (),
            direct=True,
        )

    def _add(self, item: Item) -> None:
        if isinstance(item.message, InvalidEventError):
            raise item.message
        event = self._span(item) if self._signal is TRACES else self._log(item)
        size = len(event.data.encode())
        self._count(size)
        if size > MOST_EVENT_BYTES:
            raise InvalidEventError(
                self._signal.noun, f"is larger than {MOST_EVENT_BYTES:,} bytes as JSON", "too_large"
            )
        self._events.append(event)

    def _count(self, size: int) -> None:
        """Count bytes, also of what cannot be stored: it takes as much time."""
        self._bytes += size
        if self._bytes > MOST_BYTES:
            raise too_large(
                f"The request is larger than {MOST_BYTES:,} bytes as JSON, in which each "
                f"{self._signal.noun} has its resource."
            )

    def _span(self, item: Item) -> ReceivedEvent:
        span = item.message
        data = {**spans.data_of(span), **self._origin_of(item)}
        time_ms = span.end_time_unix_nano // _NANOSECONDS
        event_id = derived.event_id_of(
            time_ms, "span", self._client_id, data["trace_id"], data["span_id"]
        )
        return _event(event_id, OTEL_SPAN, time_ms, data)

    def _log(self, item: Item) -> ReceivedEvent:
        record = item.message
        data = {**logs.data_of(record), **self._origin_of(item)}
        nanoseconds = record.time_unix_nano or record.observed_time_unix_nano
        said_ms = nanoseconds // _NANOSECONDS
        text = canonical.encode(data)
        # Where clocks are coarse, a program says the same twice at one time.
        self._repeated[text] += 1
        # Not when it came, which differs when it is sent again.
        event_id = derived.event_id_of(
            said_ms, "log", self._client_id, text, str(self._repeated[text])
        )
        data.setdefault("observed", str(self._now_ms * _NANOSECONDS))
        return _event(event_id, OTEL_LOG, said_ms if nanoseconds else self._now_ms, data)

    def _origin_of(self, item: Item) -> dict[str, Any]:
        """Return resource and scope of an item, made once for those beside it."""
        known = self._origin
        if known is None or known[0] is not item.resource or known[1] is not item.scope:
            made = spans.origin(item.resource, item.scope)
            known = self._origin = (item.resource, item.scope, made)
        return known[2]

    def _reject(self, item: Item, error: InvalidEventError) -> None:
        self._problems[str(error)] += 1
        if len(self._rejected) < MOST_NOTED:
            broken = isinstance(item.message, InvalidEventError)
            sent = b"" if broken else item.message.SerializeToString(deterministic=True)
            event_id = derived.event_id_of(0, "rejected", self._client_id, str(error), sent.hex())
            self._rejected.append(Rejection(event_id, error.code, str(error)))


def _event(event_id: str, type: str, time_ms: int, data: dict[str, Any]) -> ReceivedEvent:
    """Return an event that is neither numbered nor chained."""
    session_id, agent_id, user_id = concerned.ids(data)
    salt = os.urandom(canonical.SALT_BYTES)
    fields = (event_id, type, time_ms, agent_id, session_id, user_id, canonical.encode(data))
    trace = None
    if "span_id" in data:
        trace = canonical.encode({name: data[name] for name in _PLACE if name in data})
    origin = concerned.origin(data)
    context = canonical.encode(origin) if origin else None
    digest = canonical.digest_of(*fields, None, context, trace, salt)
    return ReceivedEvent(0, *fields, digest, "", context, trace, packed(salt.hex()))

"""`Draft`: a span that an event becomes, and its protobuf message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tracker.otel.values import key_values
from tracker.otlp import names

LATEST_MS = 9_223_372_036_854
"""The year 2262, where 64 signed bits of nanoseconds end; some receivers fail beyond it."""
INTERNAL = Span.SPAN_KIND_INTERNAL
CLIENT = Span.SPAN_KIND_CLIENT
LOCAL_PARENT = 0x100
"""The flag by which OTLP says that it is known whether the parent is remote; it is not."""


@dataclass
class Draft:
    """A span in the making. Times are Unix milliseconds.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        parent_id: The span that it is in, or None.
        name: Its name.
        start_ms: When it began.
        end_ms: When it ended.
        attributes: Its attributes; those that are None are left out.
        kind: OTLP's kind of span.
        error: Why it failed, or None if it did not.
        events: Names and attributes of what happened at its end.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    start_ms: float
    end_ms: float
    attributes: dict[str, Any] = field(default_factory=dict)
    kind: Span.SpanKind.ValueType = INTERNAL
    error: str | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def message(self) -> Span:
        """Return it as it is sent."""
        end_ms = _within(self.end_ms)
        start_ms = min(_within(self.start_ms), end_ms)
        if end_ms != self.end_ms or _within(self.start_ms) != self.start_ms:
            self.attributes[names.CLAMPED] = True
        span = Span(
            trace_id=bytes.fromhex(self.trace_id),
            span_id=bytes.fromhex(self.span_id),
            parent_span_id=b"" if self.parent_id is None else bytes.fromhex(self.parent_id),
            flags=LOCAL_PARENT,
            name=self.name,
            kind=self.kind,
            start_time_unix_nano=nanoseconds(start_ms),
            end_time_unix_nano=nanoseconds(end_ms),
            attributes=key_values(_given(self.attributes)),
        )
        for name, attributes in self.events:
            event = span.events.add(name=name, time_unix_nano=span.end_time_unix_nano)
            event.attributes.extend(key_values(_given(attributes)))
        if self.error is not None:
            span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=self.error))
        return span


def nanoseconds(ms: float) -> int:
    """Return milliseconds, of which two decimals count, as nanoseconds."""
    return round(ms * 100) * 10_000 if isinstance(ms, float) else ms * 1_000_000


def _within(ms: float) -> float:
    return min(max(ms, 0), LATEST_MS)


def _given(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}

"""Spans and log records that came in through OpenTelemetry, as the messages that they were.

Nothing is added, so what a receiver gets is what it would have got without a tracker between; but
times that receivers fail to store are clamped, and an attribute says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tracker.otel.values import any_value, key_values
from tracker.otlp import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

FAULTS = (KeyError, TypeError, ValueError, AttributeError)
"""What is raised for data that another program wrote under the name of such an event."""

_KINDS = {
    "internal": Span.SPAN_KIND_INTERNAL,
    "server": Span.SPAN_KIND_SERVER,
    "client": Span.SPAN_KIND_CLIENT,
    "producer": Span.SPAN_KIND_PRODUCER,
    "consumer": Span.SPAN_KIND_CONSUMER,
}
_CODES = {"ok": Status.STATUS_CODE_OK, "error": Status.STATUS_CODE_ERROR}
_PARENT_KNOWN, _PARENT_REMOTE = 0x100, 0x200
_MOST_U32 = 2**32 - 1
_LATEST = 2**63 - 1
"""In the year 2262, where 64 signed bits of nanoseconds end; some receivers fail beyond it."""


def span(data: Mapping[str, Any]) -> Span:
    """Return the span of an ``otel.span`` event's data.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if it is no such data.
    """
    time = _Clamp()
    made = Span(
        trace_id=_id(data["trace_id"], 16),
        span_id=_id(data["span_id"], 8),
        parent_span_id=_id(data["parent_span_id"], 8) if "parent_span_id" in data else b"",
        trace_state=data.get("trace_state", ""),
        flags=_flags(data.get("parent_is_remote") is True),
        name=data["name"],
        kind=_KINDS[data["kind"]],
        start_time_unix_nano=time(data["start"]),
        end_time_unix_nano=time(data["end"]),
        attributes=key_values(data.get("attributes", {})),
        dropped_attributes_count=_count(data, "dropped_attributes"),
        dropped_events_count=_count(data, "dropped_events"),
        dropped_links_count=_count(data, "dropped_links"),
        events=[_event(each, time) for each in data.get("events", ())],
        links=[_link(each) for each in data.get("links", ())],
    )
    made.status.CopyFrom(_status(data["status"]) if "status" in data else Status())
    made.attributes.extend(time.said())
    return made


def _status(data: Mapping[str, Any]) -> Status:
    return Status(code=_CODES[data["code"]], message=data.get("message", ""))


def _event(data: Mapping[str, Any], time: _Clamp) -> Span.Event:
    return Span.Event(
        name=data["name"],
        time_unix_nano=time(data["time"]),
        attributes=key_values(data.get("attributes", {})),
        dropped_attributes_count=_count(data, "dropped_attributes"),
    )


def _link(data: Mapping[str, Any]) -> Span.Link:
    return Span.Link(
        trace_id=_id(data["trace_id"], 16),
        span_id=_id(data["span_id"], 8),
        trace_state=data.get("trace_state", ""),
        flags=_flags(data.get("is_remote") is True),
        attributes=key_values(data.get("attributes", {})),
        dropped_attributes_count=_count(data, "dropped_attributes"),
    )


def log_record(data: Mapping[str, Any]) -> LogRecord:
    """Return the log record of an ``otel.log`` event's data.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: if it is no such data.
    """
    time = _Clamp()
    made = LogRecord(
        time_unix_nano=time(data["time"]) if "time" in data else 0,
        observed_time_unix_nano=time(data["observed"]),
        severity_number=data.get("severity", 0),
        severity_text=data.get("severity_text", ""),
        body=any_value(data.get("body")),
        event_name=data.get("event_name", ""),
        trace_id=_id(data["trace_id"], 16) if "trace_id" in data else b"",
        span_id=_id(data["span_id"], 8) if "span_id" in data else b"",
        flags=data.get("flags", 0),
        attributes=key_values(data.get("attributes", {})),
        dropped_attributes_count=_count(data, "dropped_attributes"),
    )
    made.attributes.extend(time.said())
    return made


def _id(text: str, size: int) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != size:
        raise ValueError(f"an id has {len(found)} bytes")
    return found


class _Clamp:
    """Reads the times of one message, and holds them to what receivers can store."""

    def __init__(self) -> None:
        self._clamped = False

    def __call__(self, text: str) -> int:
        nanoseconds = int(text)
        if 0 <= nanoseconds <= _LATEST:
            return nanoseconds
        self._clamped = True
        return min(max(nanoseconds, 0), _LATEST)

    def said(self) -> list[KeyValue]:
        """Return the attribute that says that a time was clamped, if one was."""
        return key_values({names.CLAMPED: True}) if self._clamped else []


def _count(data: Mapping[str, Any], name: str) -> int:
    return min(int(data.get(name, 0)), _MOST_U32)


def _flags(is_remote: bool) -> int:
    return _PARENT_KNOWN | (_PARENT_REMOTE if is_remote else 0)

"""Events as log records, for receivers that take those, and log records as spans for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.logs.v1 import logs_pb2

from tracker.otel.values import key_values
from tracker.otlp import names
from tracker.otlp.mapping import about, own_attributes
from tracker.otlp.spans import LATEST_MS, Draft, nanoseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

_SEVERITIES = {
    **dict.fromkeys(("debug", "DEBUG"), logs_pb2.SEVERITY_NUMBER_DEBUG),
    **dict.fromkeys(("info", "INFO", "low"), logs_pb2.SEVERITY_NUMBER_INFO),
    **dict.fromkeys(("warning", "WARNING", "medium"), logs_pb2.SEVERITY_NUMBER_WARN),
    **dict.fromkeys(("error", "ERROR", "high"), logs_pb2.SEVERITY_NUMBER_ERROR),
    **dict.fromkeys(("critical", "CRITICAL"), logs_pb2.SEVERITY_NUMBER_FATAL),
}
"""By the level of a record of `logging` and the severity of a security event."""
_SPANS = (
    "conversation.", "message.", "tool.", "feedback.", "llm.", "function.", "span.", "score.",
    "integrity.", "events.", "retention.", "otel.span",
)  # fmt: skip
"""Beginnings of the types that are always spans."""


def is_record(type: str) -> bool:
    """Return True for the types of events that become log records, if any do."""
    return not type.startswith(_SPANS)


def record_of(event: Mapping[str, Any], trace_id: str, span_id: str | None) -> logs_pb2.LogRecord:
    """Return an event as a log record in a span of a trace, if it is given."""
    data = event["data"]
    level = data.get("level" if event["type"] == "log.recorded" else "severity")
    level = level if isinstance(level, str) else ""
    at = nanoseconds(min(max(event["timestamp_ms"], 0), LATEST_MS))
    attributes = {**{f"{names.OWN}{name}": value for name, value in data.items()}, **about(event)}
    return logs_pb2.LogRecord(
        time_unix_nano=at,
        observed_time_unix_nano=at,
        severity_number=_SEVERITIES.get(level, logs_pb2.SEVERITY_NUMBER_INFO),
        severity_text=level,
        event_name=event["type"],
        trace_id=bytes.fromhex(trace_id),
        span_id=b"" if span_id is None else bytes.fromhex(span_id),
        attributes=key_values(attributes),
    )


def span_of_record(event: Mapping[str, Any], trace_id: str, parent_id: str | None) -> Draft:
    """Return a log record that came in as a span without a duration, its own id still missing."""
    data = event["data"]
    at = int(data.get("time", data["observed"])) / 1_000_000
    shown = {name: value for name, value in data.items() if name not in ("resource", "scope")}
    attributes = {
        name.replace(names.OWN, f"{names.OWN}log.", 1): value
        for name, value in own_attributes({"data": shown}).items()
    }
    name = str(data.get("event_name") or "log")
    return Draft(trace_id, "", parent_id, name, at, at, {names.KIND: "CHAIN", **attributes})

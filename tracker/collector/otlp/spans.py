"""Spans of OTLP as the data of ``otel.span`` events, as `tracker.otel.spans` describes it."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tracker.collector.batch import InvalidEventError
from tracker.otel.values import json_attributes

_KINDS = {
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}
_INTERNAL = "internal"
"""What a receiver may take an unspecified kind for."""
_CODES = {Status.STATUS_CODE_OK: "ok", Status.STATUS_CODE_ERROR: "error"}
_REMOTE = 0x200
_MOST_EVENTS = 180_000
"""More of them are too large as JSON for any event, and take a gigabyte before that is known."""
TRACE_BYTES, SPAN_BYTES = 16, 8


def is_id(found: bytes, size: int) -> bool:
    """Return True if these bytes are the id of a trace or span of `size` bytes."""
    return len(found) == size and any(found)


def data_of(span: Span) -> dict[str, Any]:
    """Return the data of a span, without resource and scope.

    Raises:
        InvalidEventError: if it cannot be told from others, or has not ended.
    """
    _check(span)
    links = [link for link in span.links if _is_link(link)]
    data = {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "name": span.name,
        "kind": _KINDS.get(span.kind, _INTERNAL),
        "start": str(span.start_time_unix_nano),
        "end": str(span.end_time_unix_nano),
    }
    others = {
        "trace_state": span.trace_state,
        "attributes": json_attributes(span.attributes),
        "events": [_event(event) for event in span.events],
        "links": [_link(link) for link in links],
        "status": _status(span.status),
        "dropped_attributes": span.dropped_attributes_count,
        "dropped_events": span.dropped_events_count,
        "dropped_links": span.dropped_links_count + len(span.links) - len(links),
    }
    if is_id(span.parent_span_id, SPAN_BYTES):
        data["parent_span_id"] = span.parent_span_id.hex()
        others["parent_is_remote"] = bool(span.flags & _REMOTE)
    return {**data, **_present(others)}


def _check(span: Span) -> None:
    if not is_id(span.trace_id, TRACE_BYTES):
        raise InvalidEventError("trace_id", "is not 16 bytes, of which one is not zero")
    if not is_id(span.span_id, SPAN_BYTES):
        raise InvalidEventError("span_id", "is not 8 bytes, of which one is not zero")
    if span.parent_span_id and len(span.parent_span_id) != SPAN_BYTES:
        raise InvalidEventError("parent_span_id", "is neither empty nor 8 bytes")
    if not span.end_time_unix_nano:
        raise InvalidEventError("end_time_unix_nano", "is missing: the span has not ended")
    if len(span.events) > _MOST_EVENTS:
        raise InvalidEventError("events", f"has more than {_MOST_EVENTS:,} entries", "too_large")


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _event(event: Span.Event) -> dict[str, Any]:
    others = {
        "attributes": json_attributes(event.attributes),
        "dropped_attributes": event.dropped_attributes_count,
    }
    return {"name": event.name, "time": str(event.time_unix_nano), **_present(others)}


def _is_link(link: Span.Link) -> bool:
    """Return True for a link that leads somewhere; the others are counted as dropped."""
    return is_id(link.trace_id, TRACE_BYTES) and is_id(link.span_id, SPAN_BYTES)


def _link(link: Span.Link) -> dict[str, Any]:
    others = {
        "trace_state": link.trace_state,
        "is_remote": bool(link.flags & _REMOTE),
        "attributes": json_attributes(link.attributes),
        "dropped_attributes": link.dropped_attributes_count,
    }
    return {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), **_present(others)}


def _status(status: Status) -> dict[str, Any]:
    code = _CODES.get(status.code)
    return {} if code is None else _present({"code": code, "message": status.message})


def origin(resource: Any, scope: Any) -> dict[str, Any]:
    """Return ``resource`` and ``scope`` of what is in these two groups."""
    found: dict[str, Any] = {
        "resource": {
            "attributes": json_attributes(resource.resource.attributes),
            **_present({"schema_url": resource.schema_url}),
        }
    }
    named = {
        "version": scope.scope.version,
        "schema_url": scope.schema_url,
        "attributes": json_attributes(scope.scope.attributes),
    }
    around = {"name": scope.scope.name, **_present(named)}
    return {**found, "scope": around} if any(around.values()) else found

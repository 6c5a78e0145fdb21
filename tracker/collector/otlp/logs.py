"""Log records of OTLP as the data of ``otel.log`` events, as `tracker.otel.logs` describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.collector.otlp.spans import SPAN_BYTES, TRACE_BYTES, is_id
from tracker.otel.values import json_attributes, json_value

if TYPE_CHECKING:
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord


def data_of(record: LogRecord) -> dict[str, Any]:
    """Return the data of a log record, without resource and scope.

    An id of a trace or span that is none is left out: the record then belongs to none. ``observed``
    is missing if the sender did not say it.
    """
    traced = is_id(record.trace_id, TRACE_BYTES)
    found = {
        "time": record.time_unix_nano and str(record.time_unix_nano),
        "observed": record.observed_time_unix_nano and str(record.observed_time_unix_nano),
        "severity": int(record.severity_number),
        "severity_text": record.severity_text,
        "event_name": record.event_name,
        "trace_id": traced and record.trace_id.hex(),
        "span_id": traced and is_id(record.span_id, SPAN_BYTES) and record.span_id.hex(),
        "flags": record.flags,
        "attributes": json_attributes(record.attributes),
        "dropped_attributes": record.dropped_attributes_count,
    }
    data = {name: value for name, value in found.items() if value}
    body = json_value(record.body)
    if body is not None:
        data["body"] = body
    return data

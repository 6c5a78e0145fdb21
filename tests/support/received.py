"""OTLP requests as a collector gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tracker.otel.values import key_values

if TYPE_CHECKING:
    from collections.abc import Mapping

END_NS = 1_790_000_000_000_000_000


def span_of(number: int, *, attributes: Mapping[str, Any] | None = None, **fields: Any) -> Span:
    """Return the span of a number; `fields` replace its own."""
    own = {
        "trace_id": number.to_bytes(16, "big"),
        "span_id": number.to_bytes(8, "big"),
        "name": f"span {number}",
        "start_time_unix_nano": END_NS - 1_000,
        "end_time_unix_nano": END_NS,
    }
    return Span(**{**own, **fields}, attributes=key_values(attributes or {}))


def traces_request(*spans: Span, resource: Mapping[str, Any] | None = None) -> bytes:
    """Return a request for spans, of one resource."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(key_values(resource or {}))
    group.scope_spans.add(spans=spans)
    body: bytes = request.SerializeToString()
    return body


def logs_request(*bodies: str, **fields: Any) -> bytes:
    """Return a request for log records that say this; `fields` are those of each."""
    request = ExportLogsServiceRequest()
    records = [LogRecord(body=AnyValue(string_value=body), **fields) for body in bodies]
    request.resource_logs.add().scope_logs.add(log_records=records)
    encoded: bytes = request.SerializeToString()
    return encoded

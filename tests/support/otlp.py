"""An OTLP receiver on loopback: what came in, and answers as a test wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.server import Answer, Request, answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

PROTOBUF = {"Content-Type": "application/x-protobuf"}
PROBE = "tracker.connected"


def spans_in(*requests: Request) -> list[Span]:
    """Return the spans of requests, in the order sent."""
    return [
        span
        for request in requests
        if request.path.endswith("/v1/traces")
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def records_in(*requests: Request) -> list[LogRecord]:
    """Return the log records of requests, in the order sent."""
    return [
        record
        for request in requests
        if request.path.endswith("/v1/logs")
        for resource in ExportLogsServiceRequest.FromString(request.body).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


def resources_in(*requests: Request) -> list[dict[str, object]]:
    """Return the attributes of the resources in requests for spans."""
    return [
        attributes(resource.resource.attributes)
        for request in requests
        for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans
    ]


def attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    """Return attributes as a dict of plain values."""
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> object:
    kind = value.WhichOneof("value")
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)


def event_ids(spans: Iterable[Span]) -> set[object]:
    """Return the ids of the events that spans were made of; probes have none."""
    found = {attributes(span.attributes).get("tracker.event.id") for span in spans}
    return found - {None}


def success(
    rejected: int = 0, message: str = "", headers: Mapping[str, str] = PROTOBUF
) -> Callable[[Request], Answer]:
    """Return a reply that stores everything, or all but so many."""

    def reply(request: Request) -> Answer:
        response: ExportTraceServiceResponse | ExportLogsServiceResponse
        if request.path.endswith("/v1/logs"):
            response = ExportLogsServiceResponse()
            if rejected or message:
                response.partial_success.rejected_log_records = rejected
        else:
            response = ExportTraceServiceResponse()
            if rejected or message:
                response.partial_success.rejected_spans = rejected
        if message:
            response.partial_success.error_message = message
        return answer(200, response.SerializeToString(), headers)

    return reply


def unless(
    is_poison: Callable[[Span], bool], refusal: Callable[[int], Callable[[Request], Answer]]
) -> Callable[[Request], Answer]:
    """Return a reply that stores a request, or refuses it if poison is in it.

    Args:
        is_poison: Returns True for a span that cannot be stored.
        refusal: Returns the reply to a request with so many of them.
    """

    def reply(request: Request) -> Answer:
        found = sum(map(is_poison, spans_in(request)))
        return (refusal(found) if found else success())(request)

    return reply


def named(*names: str) -> Callable[[Span], bool]:
    """Return a function that knows the spans of these names."""
    return lambda span: span.name in names

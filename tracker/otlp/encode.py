"""`Batch`: spans or log records in the form of one OTLP request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tracker import canonical
from tracker.otel.values import key_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

Signal = Literal["traces", "logs"]
_GROUP_BYTES, _MESSAGE_BYTES = 64, 8
"""More than a group, and a message in it, take besides their contents."""


class Source:
    """What a span or log record comes from: its resource and its scope, as JSON objects.

    Args:
        resource: ``attributes`` and perhaps a ``schema_url``.
        scope: ``name`` and perhaps ``version``, ``schema_url`` and ``attributes``; or None.
    """

    def __init__(self, resource: Mapping[str, Any], scope: Mapping[str, Any] | None) -> None:
        self.resource = resource
        self.scope = scope or {}
        self.key = (canonical.encode(self.resource), canonical.encode(self.scope))


class Batch:
    """A request in the making. What comes from one source is sent together, in the given order.

    Attributes:
        signal: What it holds.
        messages: Number of spans or records.
        bytes: At most so many bytes it takes.
    """

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.messages = 0
        self.bytes = 0
        self._groups: dict[tuple[str, str], tuple[Source, list[Any]]] = {}

    def add(self, source: Source, message: Span | LogRecord) -> None:
        """Add a span or a record."""
        group = self._groups.get(source.key)
        if group is None:
            group = self._groups[source.key] = (source, [])
            self.bytes += sum(4 * len(text) for text in source.key) + _GROUP_BYTES
        group[1].append(message)
        self.messages += 1
        self.bytes += message.ByteSize() + _MESSAGE_BYTES

    def encoded(self) -> bytes:
        """Return the body of the request, not yet compressed."""
        request: ExportTraceServiceRequest | ExportLogsServiceRequest
        request = self._traces() if self.signal == "traces" else self._logs()
        body: bytes = request.SerializeToString()
        return body

    def _traces(self) -> ExportTraceServiceRequest:
        request = ExportTraceServiceRequest()
        for source, spans in self._groups.values():
            resource = request.resource_spans.add(
                resource=_resource(source), schema_url=source.resource.get("schema_url", "")
            )
            resource.scope_spans.add(
                scope=_scope(source), spans=spans, schema_url=source.scope.get("schema_url", "")
            )
        return request

    def _logs(self) -> ExportLogsServiceRequest:
        request = ExportLogsServiceRequest()
        for source, records in self._groups.values():
            resource = request.resource_logs.add(
                resource=_resource(source), schema_url=source.resource.get("schema_url", "")
            )
            resource.scope_logs.add(
                scope=_scope(source),
                log_records=records,
                schema_url=source.scope.get("schema_url", ""),
            )
        return request


def _resource(source: Source) -> Resource:
    return Resource(attributes=key_values(source.resource.get("attributes", {})))


def _scope(source: Source) -> InstrumentationScope:
    scope = source.scope
    return InstrumentationScope(
        name=scope.get("name", ""),
        version=scope.get("version", ""),
        attributes=key_values(scope.get("attributes", {})),
    )

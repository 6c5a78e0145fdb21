"""The two signals that are received, traces and logs, and the messages of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

if TYPE_CHECKING:
    from google.protobuf.message import Message


class Level(NamedTuple):
    """A repeated field of one of the messages: its name, its name in JSON, and what it holds."""

    name: str
    json_name: str
    message: type[Message]


class Signal(NamedTuple):
    """What the messages of a signal are called.

    Attributes:
        noun: One of what is sent, for people.
        request: A whole request.
        levels: From the request down to what is sent: groups by resource, by scope, and the items.
    """

    noun: str
    request: type[Message]
    levels: tuple[Level, Level, Level]


TRACES = Signal(
    "span",
    ExportTraceServiceRequest,
    (
        Level("resource_spans", "resourceSpans", ResourceSpans),
        Level("scope_spans", "scopeSpans", ScopeSpans),
        Level("spans", "spans", Span),
    ),
)
LOGS = Signal(
    "log record",
    ExportLogsServiceRequest,
    (
        Level("resource_logs", "resourceLogs", ResourceLogs),
        Level("scope_logs", "scopeLogs", ScopeLogs),
        Level("log_records", "logRecords", LogRecord),
    ),
)


def response(signal: Signal, rejected: int, message: str) -> Any:
    """Return the answer to a request of which everything, or all but so much, is stored."""
    if signal is TRACES:
        traces = ExportTraceServiceResponse()
        if rejected:
            partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
            traces.partial_success.CopyFrom(partial)
        return traces
    logs = ExportLogsServiceResponse()
    if rejected:
        lost = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
        logs.partial_success.CopyFrom(lost)
    return logs

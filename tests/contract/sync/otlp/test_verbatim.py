"""Spans and log records of OpenTelemetry, through the outbox to a receiver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.otlp import resources_in, spans_in, success
from tests.support.uploads import account_of
from tracker import Tracker
from tracker.otel import OutboxSpanProcessor

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from tests.conftest import MakeConfig
    from tests.support.server import ScriptedServer


def in_order_of_keys(span: Span) -> Span:
    """Return a span with its attributes sorted: their order means nothing."""
    for holder in (span, *span.events, *span.links):
        pairs = sorted(holder.attributes, key=lambda pair: pair.key)
        del holder.attributes[:]
        holder.attributes.extend(pairs)
    return span


def test_a_receiver_gets_what_the_exporter_would_have_sent(
    config: MakeConfig, scripted_server: ScriptedServer
) -> None:
    """Ids, times, attributes, events, status and resource of nested spans: nothing is added."""
    scripted_server.otherwise = success()
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "kiosk"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = config(base_url=scripted_server.url, protocol="otlp", api_key=None)
    with Tracker(settings) as tracker:
        provider.add_span_processor(OutboxSpanProcessor(tracker, started=True, conversation=False))
        made = provider.get_tracer("instrumentor", "1.0")
        with made.start_as_current_span("invoke_agent", attributes={"gen_ai.agent.name": "desk"}):
            for number in range(3):
                with made.start_as_current_span("chat", attributes={"n": number}) as span:
                    span.add_event("token", {"text": "Hi"})
        tracker.flush(10)
        provider.shutdown()
    request = encode_spans(exporter.get_finished_spans())
    expected = [
        span
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    sent = spans_in(*scripted_server.requests)
    assert [in_order_of_keys(span) for span in sent] == [in_order_of_keys(s) for s in expected]
    assert resources_in(*scripted_server.requests)[0]["service.name"] == "kiosk"
    account = account_of(settings)
    assert (account.delivered, account.skipped) == (4, 4), "starts are not sent"

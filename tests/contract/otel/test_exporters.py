"""Exporters, for code that takes no processor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tracker.otel import OutboxLogRecordExporter, OutboxSpanExporter

if TYPE_CHECKING:
    from tests.contract.otel.conftest import MakeTraced, Traced


def test_behind_a_simple_processor_a_span_is_stored_when_it_ends(traced: Traced) -> None:
    """As with our own."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OutboxSpanExporter(traced.tracker)))
    provider.get_tracer("x").start_span("step").end()
    assert [data["name"] for data in traced.data()] == ["step"]
    provider.shutdown()


def test_behind_a_batch_processor_a_flush_stores_all(traced: Traced) -> None:
    """In one commit."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OutboxSpanExporter(traced.tracker)))
    for number in range(100):
        provider.get_tracer("x").start_span(f"step {number}").end()
    provider.force_flush()
    assert [data["name"] for data in traced.data()] == [f"step {number}" for number in range(100)]
    provider.shutdown()


def test_an_export_says_whether_all_is_stored(make_traced: MakeTraced) -> None:
    """After a shutdown nothing is, and of an odd batch all that can be."""
    traced = make_traced()
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.get_tracer("x").start_span("step", attributes={"text": "x" * (3 << 20)}).end()
    exporter = OutboxSpanExporter(traced.tracker)
    assert exporter.export(memory.get_finished_spans()) is SpanExportResult.SUCCESS
    assert exporter.export([]) is SpanExportResult.SUCCESS
    assert exporter.force_flush()
    exporter.shutdown()
    assert exporter.export(memory.get_finished_spans()) is SpanExportResult.FAILURE
    traced.tracker.close()
    assert (
        OutboxSpanExporter(traced.tracker).export(memory.get_finished_spans())
        is SpanExportResult.FAILURE
    )


@pytest.mark.parametrize("exporter", [OutboxSpanExporter, OutboxLogRecordExporter])
@pytest.mark.parametrize("batch", [None, [None], [object()], [ReadableSpan("no context")], 7])
def test_no_export_raises_in_the_application(traced: Traced, exporter: Any, batch: Any) -> None:
    """What is no span, and what is no batch, is counted as lost."""
    made = exporter(traced.tracker)
    assert made.export(batch).name == "FAILURE"
    assert traced.tracker.health().otel_dropped == 1
    assert traced.rows("otel.span", "otel.log") == []


def test_of_a_batch_only_what_is_no_span_is_lost(traced: Traced) -> None:
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.get_tracer("x").start_span("step").end()
    batch: Any = [None, *memory.get_finished_spans()]
    assert OutboxSpanExporter(traced.tracker).export(batch) is SpanExportResult.FAILURE
    assert [data["name"] for data in traced.data()] == ["step"]


def test_log_records_can_be_exported_too(traced: Traced) -> None:
    """The tracker's own are passed over."""
    exporter = OutboxLogRecordExporter(traced.tracker)
    provider: Any = LoggerProvider(shutdown_on_exit=False)  # typed in newer versions only
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("agent").emit(LogRecord(body="hello"))
    provider.get_logger("tracker").emit(LogRecord(body="own"))
    assert [row.data["body"] for row in traced.rows("otel.log")] == ["hello"]
    assert exporter.force_flush()
    provider.shutdown()
    assert exporter.export([]) is LogRecordExportResult.FAILURE

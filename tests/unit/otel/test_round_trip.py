"""Spans and log records, in and out: the bytes that OpenTelemetry's own exporter would send."""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.version import __version__
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.span import TraceState

from tracker import APIConfig, canonical
from tracker.collector.otlp.body import items
from tracker.collector.otlp.events import Gathering
from tracker.collector.otlp.forms import PROTOBUF
from tracker.collector.otlp.signals import LOGS, TRACES, Signal
from tracker.otel import logs, spans
from tracker.otel.origin import Origins
from tracker.otel.plain import Plain
from tracker.otlp import encode, verbatim
from tracker.redaction.redactor import Redactor

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = TEXT.filter(bool) | st.sampled_from(["@bytes", "@", "gen_ai.prompt", "a"])
FLOATS = st.floats(allow_nan=False) | st.just(math.nan)  # one of the many
SCALARS = st.booleans() | st.integers(-(2**63), 2**63 - 1) | FLOATS | TEXT
VALUES = SCALARS | st.lists(st.booleans()) | st.lists(FLOATS) | st.lists(TEXT)
# Older versions make None of lists of several types, and their exporter then fails.
NEW = tuple(map(int, __version__.split(".")[:2])) >= (1, 45)
NESTED: st.SearchStrategy[Any] = (
    VALUES
    if not NEW
    else st.recursive(
        VALUES | st.binary(max_size=9),  # None is one thing to older versions, another to newer
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    )
)
# Of any type: what is allowed in an attribute differs from version to version.
ATTRIBUTES: st.SearchStrategy[Any] = st.dictionaries(KEYS, VALUES | NESTED, max_size=5)
STATES = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["1", "xyz"])), max_size=2, unique_by=min
)
TIMES = st.integers(1, 2**63 - 1)


@st.composite
def contexts(draw: st.DrawFn, *, states: bool = True) -> SpanContext:
    return SpanContext(
        draw(st.integers(1, 2**128 - 1)),
        draw(st.integers(1, 2**64 - 1)),
        is_remote=draw(st.booleans()),
        trace_flags=TraceFlags(1),
        trace_state=TraceState(draw(STATES)) if states else None,
    )


@st.composite
def ended(draw: st.DrawFn) -> ReadableSpan:
    memory = InMemorySpanExporter()
    most = draw(st.integers(1, 4))
    provider = TracerProvider(
        resource=Resource(draw(ATTRIBUTES), draw(st.none() | TEXT)),
        span_limits=SpanLimits(max_attributes=most, max_events=most, max_links=most),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(SimpleSpanProcessor(memory))
    tracer = provider.get_tracer(
        draw(TEXT.filter(bool)), draw(st.none() | TEXT), draw(st.none() | TEXT), draw(ATTRIBUTES)
    )
    parent = draw(st.none() | contexts())
    # The official exporter leaves the trace state of a link out; we do not.
    links = draw(st.lists(st.builds(Link, contexts(states=False), ATTRIBUTES), max_size=3))
    span = tracer.start_span(
        draw(TEXT),
        None if parent is None else set_span_in_context(NonRecordingSpan(parent)),
        draw(st.sampled_from(SpanKind)),
        draw(ATTRIBUTES),
        links,
        draw(TIMES),
    )
    for name, attributes, time in draw(st.lists(st.tuples(TEXT, ATTRIBUTES, TIMES), max_size=3)):
        span.add_event(name, attributes, time)
    code = draw(st.sampled_from(StatusCode))
    span.set_status(Status(code, draw(TEXT) if code is StatusCode.ERROR else None))
    span.end(draw(TIMES))
    (found,) = memory.get_finished_spans()
    return found


@st.composite
def emitted(draw: st.DrawFn) -> Any:
    untyped: Any = InMemoryLogRecordExporter
    memory = untyped()
    provider = LoggerProvider(
        resource=Resource(draw(ATTRIBUTES), draw(st.none() | TEXT)), shutdown_on_exit=False
    )
    provider.add_log_record_processor(SimpleLogRecordProcessor(memory))
    logger = provider.get_logger(
        draw(TEXT.filter(bool)), draw(st.none() | TEXT), draw(st.none() | TEXT), draw(ATTRIBUTES)
    )
    context = draw(st.none() | contexts())
    logger.emit(
        LogRecord(
            timestamp=draw(st.none() | TIMES),
            observed_timestamp=draw(TIMES),
            context=None if context is None else set_span_in_context(NonRecordingSpan(context)),
            severity_number=draw(st.none() | st.sampled_from(SeverityNumber)),
            severity_text=draw(st.none() | TEXT),
            body=draw(NESTED),
            attributes=draw(ATTRIBUTES),
            event_name=draw(st.none() | TEXT),
        )
    )
    (found,) = memory.get_finished_logs()
    return found


def sort_keys(message: Any) -> Any:
    """Sort all attributes in a message of OTLP by their keys, in place."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if not hasattr(value, "append"):
            sort_keys(value)
            continue
        for item in value:
            if field.message_type.name == "KeyValue":
                item.value.SetInParent()  # older versions leave a value out that is None
            sort_keys(item)
        if field.message_type.name == "KeyValue":
            value.sort(key=lambda pair: pair.key)
    return message


ORIGINS = Origins(Redactor(APIConfig(api_key="k", client_id="c", redaction="off")))


def stored(data: dict[str, Any]) -> Any:
    """Return what the outbox holds of an event's data."""
    return canonical.decode(canonical.encode(data))


@pytest.fixture(autouse=True)
def _without_warnings() -> Any:
    """OpenTelemetry warns, and logs, of attributes beyond its limits."""
    logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@given(ended())
def test_a_span_goes_out_as_it_would_have_without_a_tracker(span: ReadableSpan) -> None:
    """Every type of value, links, events, counts of what was dropped, scope and resource."""
    assert span.context is not None
    where = spans.place(span.context, span.parent)
    data = stored(spans.ended(span, where, Plain(1_000), ORIGINS))
    batch = encode.Batch("traces")
    batch.add(encode.Source(data["resource"], data.get("scope")), verbatim.span(data))
    assert batch.encoded() == sort_keys(encode_spans([span])).SerializeToString()


@given(emitted())
def test_a_log_record_goes_out_as_it_would_have_without_a_tracker(record: Any) -> None:
    """Body and attributes of any shape, times, severity, the span it was logged in."""
    data = stored(logs.emitted(record, Plain(1_000), ORIGINS))
    batch = encode.Batch("logs")
    batch.add(encode.Source(data["resource"], data.get("scope")), verbatim.log_record(data))
    assert batch.encoded() == sort_keys(encode_logs([record])).SerializeToString()


def received(body: bytes, signal: Signal) -> Any:
    """Return what a collector holds of the one item in a request."""
    gathering = Gathering("kiosk-17", signal, 1_790_000_000_000)
    gathering.add(items(body, PROTOBUF, signal))
    (event,) = gathering.batch().events
    return canonical.decode(event.data)


@given(ended())
def test_a_span_comes_to_a_collector_as_it_would_to_an_outbox(span: ReadableSpan) -> None:
    """Sent by the official exporter, to the last digit."""
    assert span.context is not None
    where = spans.place(span.context, span.parent)
    data = stored(spans.ended(span, where, Plain(1_000), ORIGINS))
    assert received(encode_spans([span]).SerializeToString(), TRACES) == data


@given(emitted())
def test_a_log_record_comes_to_a_collector_as_it_would_to_an_outbox(record: Any) -> None:
    """Sent by the official exporter, to the last digit."""
    data = stored(logs.emitted(record, Plain(1_000), ORIGINS))
    assert received(encode_logs([record]).SerializeToString(), LOGS) == data

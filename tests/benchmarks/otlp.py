"""Draining spans over OTLP, and encoding them, against OpenTelemetry's own encoder."""

from __future__ import annotations

import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.benchmarks import children
from tests.benchmarks.figure import Figure
from tests.benchmarks.outboxes import config, uploads_of
from tests.benchmarks.pairs import turns
from tests.benchmarks.sink import Sink
from tracker import Tracker
from tracker.events import make_event
from tracker.outbox.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figure import Scale
    from tracker import APIConfig

_BATCH = 500
_ATTRIBUTES: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 900,
    "gen_ai.usage.output_tokens": 120,
    "server.address": "api.example.com",
    "http.response.status_code": 200,
    "temperature": 0.5,
    "stream": False,
}


class Turns(NamedTuple):
    """Seconds of each round: of a drain, of our encoder, and of OpenTelemetry's."""

    drain: list[float]
    ours: list[float]
    theirs: list[float]


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figures of a drain into a bare receiver, and of encoding alone."""
    rounds, spans = 3, scale.of(20_000, 5_000)
    took = children.run(in_turns, rounds, spans, timeout=300)
    yield Figure(
        "otlp.drain",
        "drain of spans over OTLP into a bare receiver, spans per second",
        "",
        spans / median(took.drain),
        "spans/s",
        least=5_000,
    )
    yield Figure(
        "otlp.encode",
        "encoding of stored spans as OTLP, their JSON parsed",
        "OpenTelemetry's `encode_spans` of the same spans",
        median(a / b for a, b in zip(took.ours, took.theirs, strict=True)),
        most=1.1,
        details={
            "tracker µs a span": median(took.ours) / spans * 1e6,
            "encode_spans µs a span": median(took.theirs) / spans * 1e6,
        },
    )


def in_turns(rounds: int, spans: int) -> Turns:
    """Drain an outbox, encode its events, and encode the same spans; the first round warms up."""
    took = Turns([], [], [])
    peers = _spans_of_opentelemetry(spans)
    with tempfile.TemporaryDirectory() as directory, Sink() as sink:
        for turn in turns(rounds, 60):
            settings = config(Path(directory), f"spans-{turn}", base_url=sink.url, protocol="otlp")
            _fill(settings, spans)
            uploads = [event for upload in uploads_of(settings) for event in upload.events]
            took.drain.append(_drain(settings))
            took.ours.append(_seconds(_encode, uploads))
            took.theirs.append(_seconds(_encode_theirs, peers))
    return Turns(*(side[1:] for side in took))


def _fill(settings: APIConfig, spans: int) -> None:
    outbox = Outbox(settings)
    made = (make_event("otel.span", _data(number)) for number in range(1, spans + 1))
    while batch := list(islice(made, 5_000)):
        outbox.append_all(batch)
    outbox.close()


def _data(number: int) -> dict[str, Any]:
    return {
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "name": "chat gpt-4o",
        "kind": "client",
        "start": "1796027844079099110",
        "end": "1796027845079199110",
        "attributes": {**_ATTRIBUTES, "gen_ai.response.id": f"chatcmpl-{number}"},
        "resource": {"attributes": {"service.name": "kiosk", "telemetry.sdk.language": "python"}},
        "scope": {"name": "instrumentor", "version": "1.0"},
    }


def _drain(settings: APIConfig) -> float:
    began = time.perf_counter()
    tracker = Tracker(settings)
    left = tracker.flush(timeout=120).pending
    seconds = time.perf_counter() - began
    tracker.close()
    if left:
        raise RuntimeError(f"{left} spans were not drained")
    return seconds


def _seconds(encode: Any, spans: list[Any]) -> float:
    began = time.process_time()
    for start in range(0, len(spans), _BATCH):
        encode(spans[start : start + _BATCH])
    return time.process_time() - began


class _Nothing:
    """An outbox without earlier events."""

    def earlier(self, session_id: str, after: int, before: int) -> list[dict[str, Any]]:
        return []

    def newest_erasure(self) -> int | None:
        return None


def _encode(events: list[bytes]) -> bytes:
    from tracker.otlp.encode import Batch
    from tracker.otlp.mapper import Mapper

    mapper, batch = Mapper("benchmark", {}, _Nothing(), logs=False), Batch("traces")
    mapper.begin()
    for event in events:
        for source, message in mapper.messages(json.loads(event)):
            batch.add(source, message)
    return batch.encoded()


def _encode_theirs(spans: list[Any]) -> bytes:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    body: bytes = encode_spans(spans).SerializeToString()
    return body


def _spans_of_opentelemetry(count: int) -> list[Any]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    made = provider.get_tracer("instrumentor", "1.0")
    for number in range(count):
        attributes = {**_ATTRIBUTES, "gen_ai.response.id": f"chatcmpl-{number}"}
        made.start_span("chat gpt-4o", attributes=attributes).end()
    return list(exporter.get_finished_spans())

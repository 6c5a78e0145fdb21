"""One span that comes in, started and ended, against OpenTelemetry's processor and its encoder."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.benchmarks import children
from tests.benchmarks.figure import Figure
from tests.benchmarks.messages import messages
from tests.benchmarks.outboxes import Bare, config
from tests.benchmarks.pairs import Timings, interleave, ratio
from tracker import Tracker
from tracker.otel import OutboxSpanProcessor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.trace import Tracer

    from tests.benchmarks.figure import Scale

_GOALS = {"small": 1.0, "chat": 1.6}
"""At most so many times the official encoding, without any input or output, in the caller."""
_FULL = 1.4
"""At most so many times a bare commit of the same row, its encoding as OTLP included."""
_STARTED = 0.6
"""At most so much of a finished span for its start."""


class Encoding(SpanProcessor):
    """Encodes each span as the official exporter does, and throws the bytes away."""

    def on_end(self, span: ReadableSpan) -> None:
        """Encode the span."""
        encode_spans([span]).SerializeToString()


def measure(scale: Scale) -> Iterator[Figure]:
    """Yield the figures of spans that come in."""
    rounds = scale.of(20, 6)
    for kind, most in _GOALS.items():
        took = children.run(ending, kind, rounds, 300, timeout=120)
        for name, side, goal in (
            ("process", "tracker", most),
            ("started", "started", None),
        ):
            yield Figure(
                f"otel.{kind}.{name}",
                f"one {kind} span, process{', its start too' if name == 'started' else ''}, p50",
                "encode_spans of the same span in the caller",
                ratio(took[side], took["encoded"]),
                most=goal,
                details={f"{name} µs": timings.details for name, timings in took.items()},
            )
        yield Figure(
            f"otel.{kind}.batch",
            f"one {kind} span, process, p50",
            "BatchSpanProcessor, which does no work in the caller",
            ratio(took["tracker"], took["batch"]),
        )
        ends = took["tracker"].medians
        starts = [
            with_start - end for with_start, end in zip(took["started"].medians, ends, strict=True)
        ]
        yield Figure(
            f"otel.{kind}.start",
            f"the start of a {kind} span",
            "its end",
            median(start / end for start, end in zip(starts, ends, strict=True)),
            most=_STARTED,
        )
    took = children.run(flushing, rounds, 100, timeout=120)
    yield Figure(
        "otel.small.full",
        "one small span, full, p50",
        "sqlite3 insert + commit of the same row, and encode_spans",
        ratio(took["tracker"], took["bare"]),
        most=_FULL,
        details={f"{name} µs": timings.details for name, timings in took.items()},
    )


def ending(kind: str, rounds: int, calls: int) -> dict[str, Timings]:
    """Time spans from start to end behind each processor in turns."""
    with tempfile.TemporaryDirectory() as name:
        trackers = {
            each: Tracker(config(Path(name), each, durability="process"))
            for each in ("tracker", "started")
        }
        sides = {
            "batch": tracer(BatchSpanProcessor(InMemorySpanExporter())),
            "encoded": tracer(Encoding()),
            "tracker": tracer(OutboxSpanProcessor(trackers["tracker"])),
            "started": tracer(OutboxSpanProcessor(trackers["started"], started=True)),
        }
        took = interleave(
            {each: partial(spans, otel, kind) for each, otel in sides.items()}, rounds, calls
        )
        for each in trackers.values():
            each.close(timeout=0)
    return took


def flushing(rounds: int, calls: int) -> dict[str, Timings]:
    """Time small spans in turns with bare commits of their rows, and the encoding of as many."""
    with tempfile.TemporaryDirectory() as name:
        tracker = Tracker(config(Path(name), durability="full"))
        table: list[Bare] = []
        ours, encoded = tracer(OutboxSpanProcessor(tracker)), tracer(Encoding())

        def bare(calls: int) -> Sequence[Callable[[], object]]:
            if not table:
                path = tracker.config.outbox_path
                table.append(Bare(path, path.with_name("bare.db"), "full"))
            pairs = zip(table[0].new_rows(), spans(encoded, "small", calls), strict=False)
            return [partial(both, table[0], row, encode) for row, encode in pairs]

        took = interleave({"tracker": partial(spans, ours, "small"), "bare": bare}, rounds, calls)
        tracker.close(timeout=0)
    return took


def both(table: Bare, row: Any, encode: Callable[[], object]) -> None:
    """Encode a span, and insert a row."""
    encode()
    table.insert(row)


def tracer(processor: SpanProcessor) -> Tracer:
    """Return OpenTelemetry's tracer in front of a processor."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("a.library", "1.0")


def spans(otel: Tracer, kind: str, calls: int) -> list[Callable[[], object]]:
    """Return calls that make a span of eight attributes each, or one with messages."""
    return [partial(one, otel, attributes) for attributes in attributes_of(kind, calls)]


def one(otel: Tracer, attributes: dict[str, Any]) -> None:
    """Start a span and end it."""
    otel.start_span("chat gpt-4o", attributes=attributes).end()


def attributes_of(kind: str, calls: int) -> Iterator[dict[str, Any]]:
    """Yield what an instrumentor of a model notes; in a chat, some 1.4 kB of messages too."""
    texts = [message.content for message in messages(400)]
    long = [" ".join(texts[n : n + 4])[:700] for n in range(0, 400, 4)]
    for number in range(calls):
        noted: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.model": "gpt-4o-2024-08-06",
            "gen_ai.response.id": f"chatcmpl-{number}",
            "gen_ai.usage.input_tokens": 900 + number,
            "gen_ai.usage.output_tokens": 120,
            "gen_ai.request.temperature": 0.2,
        }
        if kind == "chat":
            asked, said = long[number % len(long)], long[(number + 1) % len(long)]
            noted["gen_ai.input.messages"] = f'[{{"role": "user", "content": "{asked}"}}]'
            noted["gen_ai.output.messages"] = f'[{{"role": "assistant", "content": "{said}"}}]'
        yield noted

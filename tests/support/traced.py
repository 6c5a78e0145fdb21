"""OpenTelemetry in front of a tracker."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import TracerProvider

from tracker.otel import OutboxSpanProcessor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import Tracer as OpenTelemetryTracer

    from tracker import Tracker


@contextmanager
def traced(tracker: Tracker, **options: Any) -> Iterator[OpenTelemetryTracer]:
    """Yield OpenTelemetry's tracer, whose spans `tracker` stores; shut it down in the end."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(OutboxSpanProcessor(tracker, **options))
    try:
        yield provider.get_tracer("a.library", "1.0")
    finally:
        provider.shutdown()

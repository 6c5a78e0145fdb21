"""OpenTelemetry in and out: its spans and log records become events, and events become OTLP.

The extra ``[otel]`` installs what this needs. ``import tracker`` imports none of it, and the SDK of
OpenTelemetry is imported with the first of these names only: what is sent as OTLP can do without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracker.otel.exporter import OutboxLogRecordExporter, OutboxSpanExporter
    from tracker.otel.instrumentation import instrument
    from tracker.otel.processor import OutboxLogRecordProcessor, OutboxSpanProcessor

__all__ = [
    "OutboxLogRecordExporter",
    "OutboxLogRecordProcessor",
    "OutboxSpanExporter",
    "OutboxSpanProcessor",
    "instrument",
]


_MODULES = {
    "OutboxLogRecordExporter": "exporter",
    "OutboxLogRecordProcessor": "processor",
    "OutboxSpanExporter": "exporter",
    "OutboxSpanProcessor": "processor",
    "instrument": "instrumentation",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tracker.otel.{_MODULES[name]}"), name)

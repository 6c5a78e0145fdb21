"""Exporters of OpenTelemetry that store in an outbox what they are handed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tracker import own_work
from tracker.otel.processor import SHUT_DOWN, flush, is_our_own
from tracker.otel.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.trace import ReadableSpan

    from tracker.trackers.base import BaseTracker

T = TypeVar("T")


class _Exporter:
    """What both exporters share."""

    def __init__(self, tracker: BaseTracker) -> None:
        self._store = Store(tracker)
        self._shut_down = False

    def _stored(self, batch: Iterable[T], store: Callable[[list[T]], bool]) -> bool:
        """Return True if a batch is stored, or is not to be."""
        if self._store.disabled or own_work.is_own():
            return True
        taken: list[T] = []
        if not self._store.attempt(taken.extend, batch):
            return False
        if self._shut_down:
            self._store.lose(len(taken), SHUT_DOWN)
            return False
        return store(taken)

    def shutdown(self) -> None:
        """Take no more. The tracker stays open."""
        self._shut_down = True

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Hurry uploads up; return True if all that was exported is on disk."""
        return flush(self._store, timeout_millis, uploads=False)


class OutboxSpanExporter(_Exporter, SpanExporter):
    """Stores a batch of spans as events, in one commit, for code that takes only an exporter.

    Only behind a `SimpleSpanProcessor` is a span on disk when it ends. A `BatchSpanProcessor` keeps
    spans in memory for seconds, drops those that do not fit, and loses them when the process dies:
    use `OutboxSpanProcessor` wherever a processor can be given.

    Args:
        tracker: The tracker whose outbox stores the events.

    Raises:
        ValidationError: if `tracker` is none, or one for asyncio.
    """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Store spans; FAILURE says that at least one of them is not stored."""
        whole = self._stored(spans, self._store.spans)
        return SpanExportResult.SUCCESS if whole else SpanExportResult.FAILURE


class OutboxLogRecordExporter(_Exporter, LogRecordExporter):
    """Stores a batch of log records as events; what `OutboxSpanExporter` says holds here.

    Args:
        tracker: The tracker whose outbox stores the events.

    Raises:
        ValidationError: if `tracker` is none, or one for asyncio.
    """

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Store log records; FAILURE says that at least one of them is not stored."""
        whole = self._stored(_others(batch), self._store.logs)
        return LogRecordExportResult.SUCCESS if whole else LogRecordExportResult.FAILURE


def _others(batch: Sequence[ReadableLogRecord]) -> Iterator[ReadableLogRecord]:
    """Yield records that are not this package's; as a generator, it raises where it is read."""
    for record in batch:
        if not is_our_own(record):
            yield record

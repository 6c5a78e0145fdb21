"""Processors of OpenTelemetry that store in an outbox what they are handed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk._logs import LogRecordProcessor
from opentelemetry.sdk.trace import SpanProcessor

from tracker import context, own_work, validation
from tracker.otel import handlers, logs, names, nesting
from tracker.otel.started import Run
from tracker.otel.store import Store

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from tracker.trackers.base import BaseTracker

SHUT_DOWN = "shut down"
"""Why a processor or an exporter that was shut down stores nothing."""
_MOST_PASSED_OVER = 10_000


class OutboxSpanProcessor(SpanProcessor):
    """Stores each span as an event when it ends: it is on disk when ``Span.end()`` returns.

    ::

        provider.add_span_processor(OutboxSpanProcessor(tracker))

    Only sampled spans are stored. Spans of the tracker's own statements and requests are not. No
    failure is raised in the application: `BaseTracker.health` counts what could not be stored as
    `otel_dropped`, and the log names the cause. What is too large for an event is cut, and says so.
    Shutting it down does not close the tracker.

    Args:
        tracker: The tracker whose outbox stores the events.
        started: Whether to store the start of each span too, so that those that are under way when
            the process is killed are known: they end as spans with an error. This costs one more
            commit for each span.
        conversation: Whether spans that start in a ``with tracker.conversation(...)`` block get its
            ids as attributes, unless they have such: ``gen_ai.conversation.id`` and ``session.id``,
            ``user.id``, ``gen_ai.agent.id``.
        flush_uploads: Whether `force_flush` waits for the network as well.
        nest: Whether spans that start in a span of the tracker's own, an observed function or a
            tool block become its children, in its trace. This holds for the whole process and all
            providers: a sampler that goes by parents then takes them all, and another exporter
            gets children whose parent it never sees.

    Raises:
        ValidationError: if `tracker` is none, or one for asyncio, or another argument is invalid.
    """

    def __init__(
        self,
        tracker: BaseTracker,
        *,
        started: bool = False,
        conversation: bool = True,
        flush_uploads: bool = False,
        nest: bool = False,
    ) -> None:
        self._store = Store(tracker)
        for name, flag in {
            "started": started,
            "conversation": conversation,
            "flush_uploads": flush_uploads,
            "nest": nest,
        }.items():
            validation.check_flag(name, flag)
        if nest and not self._store.disabled:
            context.nest_with(nesting.attach)
        self._run = Run(self._store) if started and not self._store.disabled else None
        self._conversation = conversation
        self._flush_uploads = flush_uploads
        self._shut_down = False
        self._passed_over: set[int] = set()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Note the conversation in `span` and, if asked for, that it started."""
        found = span.context
        if found is None or not found.trace_flags.sampled:
            return
        if own_work.is_own():
            if len(self._passed_over) >= _MOST_PASSED_OVER:
                self._passed_over.clear()  # they never ended
            self._passed_over.add(found.span_id)
            return
        if self._conversation and context.scope().conversation is not None:
            self._store.attempt(_note_conversation, span, lost=0)
        if self._run is not None and not self._shut_down:
            self._store.attempt(self._run.started, span, lost=0)

    def on_end(self, span: ReadableSpan) -> None:
        """Store `span`."""
        found = span.context
        if found is None or not found.trace_flags.sampled or self._store.disabled:
            return
        if self._passed_over and found.span_id in self._passed_over:
            self._passed_over.discard(found.span_id)
            return
        if self._shut_down:
            self._store.lose(1, SHUT_DOWN)
            return
        handlers.keep_out()
        self._store.attempt(self._store.span, span)

    def shutdown(self) -> None:
        """Take no more spans. The tracker stays open."""
        self._shut_down = True
        if self._run is not None:
            self._store.attempt(self._run.close, lost=0)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Hurry uploads up; return True if all spans are on disk, which they are as a rule.

        With `flush_uploads`, wait for uploads, and return True if nothing is pending then.
        """
        return flush(self._store, timeout_millis, self._flush_uploads)


class OutboxLogRecordProcessor(LogRecordProcessor):
    """Stores each log record as an event: it is on disk when the logging call returns.

    ::

        logger_provider.add_log_record_processor(OutboxLogRecordProcessor(tracker))

    What holds for `OutboxSpanProcessor` holds here. Records of the tracker's own loggers are passed
    over. Without ids among its attributes, a record belongs to the current conversation.

    Args:
        tracker: The tracker whose outbox stores the events.
        level: OpenTelemetry's severity number below which records are passed over; 9 is INFO, 13
            WARN, 17 ERROR. Records without one are always stored. Default: all are.
        flush_uploads: Whether `force_flush` waits for the network as well.

    Raises:
        ValidationError: if `tracker` is none, or one for asyncio, or another argument is invalid.
    """

    def __init__(
        self, tracker: BaseTracker, *, level: int = 0, flush_uploads: bool = False
    ) -> None:
        self._store = Store(tracker)
        self._level = validation.check_count("level", level)
        self._flush_uploads = validation.check_flag("flush_uploads", flush_uploads)
        handlers.keep_out()
        self._shut_down = False

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Store `log_record`."""
        if (
            self._store.disabled
            or own_work.is_own()
            or 0 < (logs.severity_of(log_record) or 0) < self._level
            or is_our_own(log_record)
        ):
            return
        scope = log_record.instrumentation_scope
        handlers.keep_out("root" if scope is None else scope.name)
        if self._shut_down:
            self._store.lose(1, SHUT_DOWN)
            return
        self._store.attempt(self._store.log, log_record)

    def shutdown(self) -> None:
        """Take no more records. The tracker stays open."""
        self._shut_down = True

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do what `OutboxSpanProcessor.force_flush` does."""
        return flush(self._store, timeout_millis, self._flush_uploads)


def is_our_own(record: ReadableLogRecord | ReadWriteLogRecord) -> bool:
    """Return True if a logger of this package made the record."""
    scope = getattr(record, "instrumentation_scope", None)  # what is no record is our caller's
    return scope is not None and f"{scope.name}.".startswith("tracker.")


def _note_conversation(span: Span) -> None:
    """Set the ids of the current conversation on a span that has no such attributes."""
    current = context.scope().conversation
    if current is None:
        return
    given = span.attributes or {}
    found: dict[str, str] = {}
    if not any(name in given for name in names.SESSION):
        found[names.CONVERSATION_ID] = found[names.SESSION_ID] = current.session_id
    if current.user_id is not None and not any(name in given for name in names.USER):
        found[names.USER_ID] = current.user_id
    if names.AGENT_ID not in given:
        found[names.AGENT_ID] = current.agent_id
    span.set_attributes(found)


def flush(store: Store, timeout_millis: int, uploads: bool) -> bool:
    """Hurry uploads up or wait for them; return True if that did what was asked for."""
    if store.disabled:
        return True
    seen: list[bool] = []
    store.attempt(_wait if uploads else _hurry, store.tracker, timeout_millis / 1000, seen, lost=0)
    return seen == [True]


def _wait(tracker: BaseTracker, seconds: float, seen: list[bool]) -> None:
    seen.append(tracker.flush(seconds).pending == 0)


def _hurry(tracker: BaseTracker, _seconds: float, seen: list[bool]) -> None:
    tracker._client.hurry()
    health = tracker.health()
    seen.append(health.storage_error is None and not health.in_memory)

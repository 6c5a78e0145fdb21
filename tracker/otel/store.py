"""`Store`: makes events of what OpenTelemetry hands over, and never fails its caller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tracker import log, own_work, validation
from tracker.errors import TrackerError, ValidationError
from tracker.events import OTEL_LOG, OTEL_SPAN, OTEL_SPAN_STARTED
from tracker.once import Once
from tracker.otel import concerned, logs, spans
from tracker.otel.fit import fitted
from tracker.otel.origin import Origins
from tracker.otel.plain import Plain
from tracker.trackers.base import BaseTracker
from tracker.trackers.capture import type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
    from opentelemetry.sdk.trace import ReadableSpan

    from tracker.events import Event
    from tracker.span_context import SpanContext
    from tracker.trackers.event_context import EventContext

    Convert = Callable[[Plain], dict[str, Any]]


T = TypeVar("T")

_MOST_CONTEXTS = 256


class _Recordable(NamedTuple):
    """What an event is made of: its type, what makes its data, and its place in a trace."""

    type: str
    convert: Convert
    where: SpanContext | None


class Store:
    """Records spans and log records with a tracker. Any thread may use it.

    OpenTelemetry calls processors without a net: what one raises is raised in the application. So
    `attempt` runs everything here; what fails is counted in `Health.otel_dropped` and logged, once
    for each kind of failure.

    Args:
        tracker: The tracker whose outbox stores the events.

    Raises:
        ValidationError: if `tracker` is none, or one for asyncio.
    """

    def __init__(self, tracker: BaseTracker) -> None:
        if not isinstance(tracker, BaseTracker):
            raise ValidationError(
                "tracker",
                f"is of type {type_name(tracker)}; give a tracker whose calls are not awaited. An "
                "AsyncTracker(config) shares the outbox of a Tracker(config)",
            )
        own_work.watch()
        self.tracker = tracker
        self._origins = Origins(tracker._redactor)
        self._logged = Once()
        self._contexts: dict[int, tuple[object, EventContext | None]] = {}  # as in Origins

    @property
    def disabled(self) -> bool:
        """Whether the configuration says that nothing is stored."""
        return self.tracker.config.disabled

    def attempt(self, function: Callable[..., object], *args: Any, lost: int = 1) -> bool:
        """Call `function` as own work; return False if it failed, and `lost` records with it.

        Only what unwinds the program, such as KeyboardInterrupt, is raised.
        """
        try:
            own_work.run(function, *args)
        except BaseException as error:
            if validation.is_interrupt(error):
                raise
            self.lose(lost, type_name(error), error)
            return False
        return True

    def lose(self, number: int, kind: str, error: BaseException | None = None) -> None:
        """Count records that are not stored, and say so once."""
        try:
            self.tracker._client.note_otel_dropped(number)
            if self._logged.is_new(kind):
                why = "it was shut down" if error is None else f"{kind}: {error}"
                bug = error is not None and not isinstance(error, TrackerError)
                log.error(
                    "a span or log record of OpenTelemetry is not stored, and more may follow: %s",
                    why,
                    exc_info=bug,
                )
        except Exception:  # noqa: BLE001 - the application is in the middle of its own work
            return

    # --- what is recorded; each may raise, and is called by `attempt` ----------------------------

    def span(self, span: ReadableSpan) -> None:
        """Store a span that has ended."""
        self._record(*self._span(span))

    def started(self, span: ReadableSpan, run: str) -> None:
        """Store that a span has started, in a run of this process."""
        where = _place(span)

        def convert(plain: Plain) -> dict[str, Any]:
            return {**spans.started(span, where, plain, self._origins), "run": run}

        self._record(OTEL_SPAN_STARTED, convert, where)

    def log(self, record: ReadWriteLogRecord) -> None:
        """Store a log record."""
        self._record(*self._log(record), current=True)

    def spans(self, batch: Iterable[ReadableSpan]) -> bool:
        """Store spans together; return False if one is lost."""
        return self._record_all(batch, self._span)

    def logs(self, batch: Iterable[ReadableLogRecord]) -> bool:
        """Store log records together; return False if one is lost."""
        return self._record_all(batch, self._log)

    def _span(self, span: ReadableSpan) -> _Recordable:
        where = _place(span)
        return _Recordable(OTEL_SPAN, self._ended(span, where), where)

    def _log(self, record: ReadableLogRecord | ReadWriteLogRecord) -> _Recordable:
        return _Recordable(OTEL_LOG, self._emitted(record), logs.place(record))

    def _ended(self, span: ReadableSpan, where: SpanContext) -> Convert:
        return lambda plain: spans.ended(span, where, plain, self._origins)

    def _emitted(self, record: ReadableLogRecord | ReadWriteLogRecord) -> Convert:
        return lambda plain: logs.emitted(record, plain, self._origins)

    def _record(
        self, type: str, convert: Convert, where: SpanContext | None, *, current: bool = False
    ) -> None:
        def record(data: dict[str, Any]) -> str:
            session_id, agent_id, user_id = concerned.ids(data)
            if current:
                session_id, agent_id, user_id = self.tracker._concerning(
                    session_id, agent_id, user_id
                )
            return self.tracker._record(
                type,
                data,
                session_id=session_id,
                agent_id=agent_id,
                user_id=user_id,
                span=where,
                context=self._context(data),
            )

        fitted(self._clean(convert), record, self.tracker.config.max_event_bytes)

    def _record_all(self, batch: Iterable[T], read: Callable[[T], _Recordable]) -> bool:
        made: list[Event] = []
        whole = True
        for each in batch:
            whole = self.attempt(self._make, made, each, read) and whole
        return self.attempt(self.tracker._record_events, made, lost=len(made)) and whole

    def _make(self, made: list[Event], each: T, read: Callable[[T], _Recordable]) -> None:
        kind, convert, where = read(each)

        def make(data: dict[str, Any]) -> Event | None:
            session_id, agent_id, user_id = concerned.ids(data)
            return self.tracker._make(
                kind, data, agent_id, session_id, user_id, (), None, where, self._context(data)
            )[0]

        event = fitted(self._clean(convert), make, self.tracker.config.max_event_bytes)
        if event is None:  # the application's hook dropped it
            self.tracker._client.count_dropped()
        else:
            made.append(event)

    def _context(self, data: dict[str, Any]) -> EventContext | None:
        """Return the context of an event: the tracker's, and what its resource says besides."""
        resource = data.get("resource")
        known = self._contexts.get(id(resource))
        if known is not None and known[0] is resource:
            return known[1]
        said = concerned.origin(data)
        found = self.tracker._context_over(said) if said else None
        if len(self._contexts) >= _MOST_CONTEXTS:
            self._contexts.clear()
        self._contexts[id(resource)] = resource, found
        return found

    def _clean(self, convert: Convert) -> Callable[[int], dict[str, Any]]:
        """Return a function that converts with a limit; bytes that hold a secret become text."""

        def clean(most: int) -> dict[str, Any]:
            plain = Plain(most)
            data = convert(plain)
            if plain.found:
                texts = {"bytes": plain.found}
                if self.tracker._redactor.masked(texts) != texts:
                    return convert(Plain(most, binary=False))
            return data

        return clean


def _place(span: ReadableSpan) -> SpanContext:
    context = span.context
    if context is None:
        raise ValidationError("span", "has no context")
    return spans.place(context, span.parent)

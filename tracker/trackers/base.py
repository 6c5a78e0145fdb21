"""`BaseTracker`: the configuration, outbox and lifetime of every tracker."""

from __future__ import annotations

import inspect
import math
import re
import sys
from typing import TYPE_CHECKING, Any

from tracker import context, log, validation
from tracker.client import connect
from tracker.config import APIConfig
from tracker.context_block import AddsContext
from tracker.errors import (
    ConfigurationError,
    TrackerClosedError,
    TrackerError,
    ValidationError,
)
from tracker.events import SECURITY_REPORTED, VOCABULARY, make_event
from tracker.ids import new_id
from tracker.process_local import ProcessLocal
from tracker.redaction.redactor import Redactor, redaction_kind
from tracker.span_context import API
from tracker.trackers.capture import fitting, type_name
from tracker.trackers.event_context import EventContext
from tracker.trackers.hook import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType

    from typing_extensions import Self

    from tracker.client import Recorder
    from tracker.events import Event
    from tracker.health import Health
    from tracker.span_context import SpanContext
    from tracker.sync.destination import Destination
    from tracker.sync.flush import FlushResult

_FREE_NAME = re.compile(r"[\w-]+(\.[\w-]+)+")


class BaseTracker(ProcessLocal, AddsContext):
    """Base class of the trackers. All methods may be called from any thread.

    Trackers with the same configuration share one outbox and one sync thread in a process; closing
    the last one stops that thread. After a fork, both parent and child can continue to log.

    Args:
        config: Settings; by default those of the environment.
        destination: Function that makes a `Destination` to use in place of HTTP to the collector,
            such as `tracker.testing.RecordingDestination`. It is called in the sync thread. All
            trackers on one outbox share the first one's: give each the same function, or none. A
            warning is logged if another one is given, and it is not used.

    Raises:
        ConfigurationError: if a setting is missing or invalid, or conflicts with another tracker's
            on this outbox, which may upload to the collector where a `destination` is given here.
        OutboxError: if the outbox cannot be opened.
    """

    def __init__(
        self,
        config: APIConfig | None = None,
        *,
        destination: Callable[[], Destination] | None = None,
    ) -> None:
        settings = settings_of(config)
        check_destination(destination)
        self._redactor = Redactor(settings)
        self._context = EventContext(settings.event_context, self._redactor)
        self._hook: Hook | None = None
        if settings.before_record is not None:
            self._hook = Hook(settings.before_record, self._redactor, settings.max_event_bytes)
        self._closed = False
        self._client: Recorder = connect(settings, self, destination)

    @property
    def config(self) -> APIConfig:
        """The settings in use."""
        return self._client.config

    def track(
        self,
        type: str,
        data: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        timestamp: datetime | int | None = None,
    ) -> str:
        """Log an event of your own type and return its id.

        Args:
            type: A dotted name such as ``"cart.abandoned"``: two or more words of letters, digits,
                ``_`` and ``-``, at most 256 characters, and not a type that another method logs,
                such as ``"message.logged"``.
            data: The event's fields: a dict that JSON can represent. Default: none.
            session_id: The conversation it belongs to; by default the current one, if there is
                one.
            agent_id: The agent it concerns; by default that of the conversation.
            user_id: The user it concerns; by default that of the conversation.
            timestamp: When it happened, for records of earlier: an aware datetime, or Unix
                milliseconds. Default: now.

        Raises:
            ValidationError: if an argument is not allowed; nothing is stored.
            OutboxError: if storage failed and `APIConfig.on_error` is "raise".
            TrackerClosedError: after `close`.
        """
        name = _check_free_name(type)
        data = self._metadata("data", data) or {}
        return self._record_about(
            name,
            data,
            session_id=validation.check_optional_id("session_id", session_id),
            agent_id=validation.check_optional_id("agent_id", agent_id),
            user_id=validation.check_optional_id("user_id", user_id),
            nullable=tuple(data),
            timestamp=timestamp,
        )

    def flush(self, timeout: float | None = 30.0) -> FlushResult:
        """Upload now and wait until all events that are pending at this moment are settled.

        Network failures raise nothing: events that were not delivered are still in the outbox.

        Args:
            timeout: Maximum number of seconds to wait; None means no limit. Default 30.

        Returns:
            How many events were delivered, are still pending, or became dead letters.

        Raises:
            TrackerClosedError: after `close`.
            OutboxError: if the outbox cannot be read.
            ValidationError: if `timeout` is no number of seconds.
        """
        self._check_open()
        return self._client.flush(validation.check_timeout("timeout", timeout))

    def health(self) -> Health:
        """Return the tracker's state: pending events, failures and losses.

        It is cheap enough for a health endpoint, since no rows are counted. Storage and network
        failures raise nothing; they are part of the result.

        Raises:
            TrackerClosedError: after `close`.
        """
        self._check_open()
        return self._client.health()

    def close(self, timeout: float = 2.0) -> FlushResult:
        """Release the outbox. The last tracker to do so uploads for `timeout` and stops the thread.

        Nothing is lost by closing early: pending events stay in the outbox until the next start.
        A second call does nothing.

        Args:
            timeout: Maximum number of seconds to upload; a failed attempt ends it. Default 2.

        Raises:
            ValidationError: if `timeout` is no number of seconds; nothing is closed then.
        """
        seconds = validation.check_timeout("timeout", timeout)
        self._closed = True
        return self._client.release(self, math.inf if seconds is None else seconds)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} {state}, outbox {self.config.outbox_path}>"

    def _record(
        self,
        type: str,
        data: dict[str, Any],
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        nullable: tuple[str, ...] = (),
        timestamp: datetime | int | None = None,
        span: SpanContext | None = None,
        context: EventContext | None = None,
    ) -> str:
        """Make an event of validated arguments, store it, and return its id.

        Fields of `data` that are None are left out unless they are `nullable`. The event belongs
        to the current span, if there is one, unless it is a `span` itself. Its context is that of
        the tracker by default.
        """
        if self._closed:
            self._check_open()
        when = None if timestamp is None else validation.check_timestamp("timestamp", timestamp)
        try:
            event, masked = self._make(
                type, data, agent_id, session_id, user_id, nullable, when, span, context
            )
        except (ValidationError, MemoryError):
            raise
        except BaseException as error:  # another thread changed it since it was checked
            if validation.is_interrupt(error):
                raise
            data = validation.copy_json(type, data)
            event, masked = self._make(
                type, data, agent_id, session_id, user_id, nullable, when, span, context
            )
        if event is None:  # the application's hook dropped it
            self._client.count_dropped()
            return new_id()
        self._client.record(event)
        if masked and type != SECURITY_REPORTED and self.config.report_redactions:
            self._report_redactions(event, masked)
        return event.event_id

    def _record_events(self, events: Sequence[Event]) -> None:
        """Store events together, all or none; they were made by `_make`."""
        self._check_open()
        if events:
            self._client.record_all(events)

    def _make(
        self,
        type: str,
        data: dict[str, Any],
        agent_id: str | None,
        session_id: str | None,
        user_id: str | None,
        nullable: tuple[str, ...],
        timestamp_ms: int | None,
        span: SpanContext | None,
        own_context: EventContext | None = None,
    ) -> tuple[Event | None, dict[str, int]]:
        """Return the event and the number of masks in it by kind."""
        kept = data
        if None in data.values():
            kept = {name: data[name] for name in data if data[name] is not None or name in nullable}
        kept, masked = self._redactor.apply(type, kept)
        scope = context.SCOPE.get()
        if span is None and (scope is not context.NOTHING or API in sys.modules):
            span = context.current_span()
        items = own_context or self._context
        around = items.text
        if scope.added is not None:
            around = items.within(scope.added)
        event = make_event(
            type,
            kept,
            agent_id=agent_id,
            session_id=session_id,
            user_id=user_id,
            context=around,
            timestamp_ms=timestamp_ms,
            trace=None if span is None else span.text,
            max_bytes=self._client.config.max_event_bytes,
        )
        return (event if self._hook is None else self._hook.apply(event)), masked

    def _context_over(self, items: Mapping[str, Any]) -> EventContext:
        """Return the context of events that have these items where the tracker says nothing."""
        own = {name: item for name, item in self.config.event_context.items() if item is not None}
        return EventContext({**items, **own}, self._redactor)

    def _json(self, argument: str, value: object) -> Any:
        """Return a value that JSON can represent, converted by `APIConfig.json_default` if need be.

        Raises:
            ValidationError: if JSON cannot represent it.
        """
        default = self._client.config.json_default
        if default is None:
            return validation.check_json(argument, value)
        return validation.convert_json(argument, value, default)

    def _metadata(self, argument: str, value: object) -> dict[str, Any] | None:
        """Return a mapping as a dict that JSON can represent, as `_json` does; None for None."""
        if value is None:
            return None
        fields: dict[str, Any] = self._json(argument, validation.as_dict(argument, value))
        return fields

    def _record_gathered(
        self,
        type: str,
        data: dict[str, Any],
        *,
        gathered: tuple[str, ...],
        agent_id: str | None,
        session_id: str | None,
        user_id: str | None,
        span: SpanContext | None = None,
    ) -> str:
        """Record captured data; the `gathered` fields are shortened until the event fits."""

        def record(take: Callable[[object], Any]) -> str:
            kept = {name: take(data[name]) if name in gathered else data[name] for name in data}
            return self._record(
                type, kept, agent_id=agent_id, session_id=session_id, user_id=user_id, span=span
            )

        try:
            return record(lambda value: value)
        except ValidationError:
            return fitting(record, self.config.max_event_bytes)

    def _report_redactions(self, event: Event, masked: dict[str, int]) -> None:
        """Log that something was masked in an event, which is already stored."""
        named = frozenset(self.config.secret_names)
        kind, severity = redaction_kind(masked, named)
        details = {"event_id": event.event_id, "event_type": event.type, "redactions": masked}
        try:
            # Not with `_record`, since nothing here has to be masked.
            report = make_event(
                SECURITY_REPORTED,
                {"kind": kind, "severity": severity, "details": details},
                agent_id=event.agent_id,
                session_id=event.session_id,
                user_id=event.user_id,
                context=event.context,
                trace=event.trace,
                max_bytes=self.config.max_event_bytes,
            )
            self._client.record(report)
        except TrackerError as error:
            log.error("the redactions of event %s were not reported: %s", event.event_id, error)

    def _record_about(
        self,
        type: str,
        data: dict[str, Any],
        *,
        session_id: str | None,
        agent_id: str | None,
        user_id: str | None = None,
        nullable: tuple[str, ...] = (),
        timestamp: datetime | int | None = None,
    ) -> str:
        """Record an event of a conversation, by default of the current one, if there is one.

        Agent and user are those of the conversation unless they are given.
        """
        session_id, agent_id, user_id = self._concerning(session_id, agent_id, user_id)
        return self._record(
            type,
            data,
            agent_id=agent_id,
            session_id=session_id,
            user_id=user_id,
            nullable=nullable,
            timestamp=timestamp,
        )

    def _concerning(
        self, session_id: str | None, agent_id: str | None, user_id: str | None
    ) -> tuple[str | None, str | None, str | None]:
        """Return session, agent and user of an event; missing ones are the conversation's."""
        self._check_open()
        current = context.scope().conversation
        if current is not None and session_id in (None, current.session_id):
            session_id = current.session_id
            agent_id, user_id = agent_id or current.agent_id, user_id or current.user_id
        if session_id is not None and (agent_id is None or user_id is None):
            session = self._client.sessions.get(session_id)
            agent_id = agent_id or session.agent_id
            user_id = user_id or session.user_id
        return session_id, agent_id, user_id

    def _check_open(self) -> None:
        if self._closed:
            raise TrackerClosedError(
                f"this {type(self).__name__} was closed; make a new one to log again"
            )


def settings_of(config: object) -> APIConfig:
    """Return the given configuration or, for None, that of the environment.

    Raises:
        ConfigurationError: if it is not an `APIConfig`, or a setting is missing or invalid.
    """
    if config is None:
        return APIConfig()
    if not isinstance(config, APIConfig):
        raise ConfigurationError(
            f"config is of type {type(config).__name__}; give an APIConfig, as in "
            "AgentPerformanceTracker(config=APIConfig(api_key=...))"
        )
    return config


def check_destination(make: object) -> None:
    """Check that `make` is None, or a function that can be called without arguments.

    Raises:
        ConfigurationError: if it is anything else, such as a destination itself.
    """
    if make is None:
        return
    allowed = (
        "give a function without arguments that makes a Destination, as in "
        "destination=RecordingDestination or destination=lambda: received"
    )
    if not callable(make):
        raise ConfigurationError(f"destination is of type {type_name(make)}; {allowed}")
    try:
        inspect.signature(make, follow_wrapped=False).bind()
    except ValueError:
        return  # some functions written in C do not tell
    except TypeError as error:
        raise ConfigurationError(
            f"destination cannot be called without arguments ({error}); {allowed}"
        ) from None


def _check_free_name(value: object) -> str:
    name = validation.check_id("type", value)
    if name in VOCABULARY:
        raise ValidationError(
            "type", f"{name!r} is a type of tracker itself; call the method that logs it"
        )
    if not _FREE_NAME.fullmatch(name):
        raise ValidationError("type", f"is {name!r}; give a dotted name, as in 'cart.abandoned'")
    return name

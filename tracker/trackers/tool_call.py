"""`ToolCall`: a call of a tool within a conversation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from tracker import context, validation
from tracker.elapsed import milliseconds_since
from tracker.errors import ValidationError
from tracker.process_local import ProcessLocal
from tracker.span_context import new_span
from tracker.trackers.capture import fitting, marker
from tracker.trackers.reporting import behind, error_text, say_replaced
from tracker.trackers.tracebacks import end

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType

    from typing_extensions import Self

    from tracker.config import APIConfig
    from tracker.span_context import SpanContext

UNKNOWN: Any = object()
"""Default of a tool's result, since None is a valid result."""


class LogsToolCalls(Protocol):
    """The part of `AgentPerformanceTracker` that a call is logged with."""

    @property
    def config(self) -> APIConfig:
        """The settings in use."""

    def _json(self, argument: str, value: object) -> Any: ...

    def _log_tool_call(
        self,
        session_id: str,
        name: str,
        arguments: Any,
        *,
        result: Any,
        error: str | None,
        duration_ms: float | None,
        call_id: str | None,
        timestamp: datetime | int | None,
        span: SpanContext | None,
        traceback: str | None,
    ) -> str: ...


class _Conversation(Protocol):
    """The part of `ActiveConversation` that a call needs."""

    session_id: str
    _unlogged: set[BaseToolCall]
    _span: SpanContext | None

    @property
    def _tracker(self) -> LogsToolCalls: ...


class BaseToolCall(ProcessLocal):
    """A call of a tool, to be logged once it has ended."""

    event_id: str | None = None
    _began: float | None = None
    _duration_ms: float | None = None
    _timestamp: datetime | int | None = None
    _span: SpanContext | None = None
    _traceback: str | None = None

    def __init__(
        self,
        conversation: _Conversation,
        name: str,
        arguments: Any,
        call_id: str | None,
    ) -> None:
        self.result: Any = None
        self.error: str | None = None
        self.call_id = validation.check_optional_id("call_id", call_id)
        self._conversation = conversation
        self._tracker = conversation._tracker
        self._name = validation.check_id("name", name)
        # The tool may change its arguments; the event has the original ones.
        self._arguments = validation.copy_json(
            "arguments", self._tracker._json("arguments", arguments)
        )
        conversation._unlogged.add(self)

    def _begin(self) -> None:
        if self not in self._conversation._unlogged:
            raise ValidationError("tool", "was logged or entered before; call tool() again")
        self._conversation._unlogged.discard(self)
        self._span = new_span(context.current_span() or self._conversation._span)
        self._began = time.monotonic()

    def _enter(self) -> None:
        self._begin()
        if self._span is not None:
            context.enter_span(self._span)

    def _leave(self) -> None:
        if self._span is not None:
            context.leave_span(self._span)

    def _finish(self, error: BaseException | None) -> None:
        self._duration_ms = None if self._began is None else milliseconds_since(self._began)
        what = f"the call of {self._name!r}"
        with behind(error, self._tracker, what):
            try:
                if error is not None and self.error is None:
                    self.error = error_text(error, with_type=True)
                self._traceback = end(self._span, error, self._tracker.config)
            finally:  # an interrupt in the exception's own code does not lose the event
                try:
                    self._record()
                except ValidationError as trouble:
                    say_replaced(self._tracker, what, trouble)
                    fitting(self._record, self._tracker.config.max_event_bytes)

    def _record(self, take: Callable[[Any], Any] = lambda value: value) -> None:
        """Log the call with its values converted by `take`."""
        self._conversation._unlogged.discard(self)
        strict = take(marker) is marker
        self.event_id = self._tracker._log_tool_call(
            self._conversation.session_id,
            self._name,
            take(self._arguments),
            result=take(self.result),
            error=self.error if strict else _text(self.error, take),
            duration_ms=self._duration_ms,
            call_id=self.call_id if strict else _id(self.call_id),
            timestamp=self._timestamp,
            span=self._span,
            traceback=self._traceback if strict else None,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} of {self._conversation.session_id}>"


class ToolCall(BaseToolCall):
    """One call of a tool, made by `ActiveConversation.tool`.

    Used as a ``with`` (or ``async with``) block, it measures the duration and is logged when the
    block is left. An exception that escapes is logged as the call's error and raised again. The
    block is a span: what is logged inside it belongs to it.

    Attributes:
        result: The result: any value that JSON can represent. Set it inside the block.
        error: The error; by default the exception that escapes.
        call_id: The id that the model gave the call.
        event_id: The event's id once it is logged, before that None.
    """

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
        self._finish(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)


def _text(value: object, take: Callable[[Any], Any]) -> str | None:
    """Return what was set as a tool's error as text: an exception's own, or that of a str."""
    if value is None:
        return None
    if issubclass(type(value), BaseException):
        value = error_text(value, with_type=True)  # type: ignore[arg-type]  # it is one
    taken = take(value)
    return taken if isinstance(taken, str) else marker(value)


def _id(value: object) -> str | None:
    try:
        return validation.check_optional_id("call_id", value)
    except ValidationError:
        return marker(value)

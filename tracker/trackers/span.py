"""Spans: named steps of the application's own, as ``with`` blocks that nest into a trace.

A block that is left becomes one ``span.recorded`` event with these fields:

================  ============================================================================
``name``          the given name
``input``         the given input, if there is one
``output``        what the block set as the span's output, if it did
``attributes``    the given attributes and those that the block set, if there are any
``error``         the message of the exception that escaped, or what the block set as the error
``error_type``    the name of the exception's type
``traceback``     where it came from, unless a span inside tells; see `tracker.trackers.tracebacks`
``duration_ms``   measured on the monotonic clock
================  ============================================================================

`tracker.trackers.capture` describes how values that JSON cannot represent are stored; long values
are truncated and marked with ``…``, so that a span always fits into an event. The event's time is
that of the end of the block.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from tracker import context, validation
from tracker.elapsed import milliseconds_since
from tracker.errors import ValidationError
from tracker.events import SPAN_RECORDED
from tracker.process_local import ProcessLocal
from tracker.span_context import new_span
from tracker.trackers.capture import capture, share, type_name
from tracker.trackers.reporting import Boundary, error_text
from tracker.trackers.tracebacks import end

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from tracker.config import APIConfig
    from tracker.span_context import SpanContext


class _Tracker(Protocol):
    """The part of `AgentPerformanceTracker` that spans are recorded with."""

    @property
    def config(self) -> APIConfig: ...

    def _record_gathered(
        self,
        type: str,
        data: dict[str, Any],
        *,
        gathered: tuple[str, ...],
        agent_id: str | None,
        session_id: str | None,
        user_id: str | None,
        span: SpanContext | None,
    ) -> str: ...


class BaseSpan(ProcessLocal):
    """A named step, to be logged once it has ended.

    Args:
        owner: The tracker that the application called, for the log.
        tracker: Returns the tracker that records; it may raise a `TrackerError`.
        config: Settings.
        name: The name.
        input: Any value; stored as it is now.
        attributes: More values by name.

    Raises:
        ValidationError: if an argument is not allowed.
    """

    event_id: str | None = None

    def __init__(
        self,
        owner: object,
        tracker: Callable[[], _Tracker],
        config: APIConfig,
        name: str,
        input: Any,
        attributes: Mapping[str, Any] | None,
    ) -> None:
        self.name = validation.check_id("name", name)
        if not isinstance(attributes, Mapping | None):
            raise ValidationError("attributes", f"is of type {type_name(attributes)}; give a dict")
        self.output: Any = None
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.error: str | None = None
        self._owner = owner
        self._tracker = tracker
        self._config = config
        self._characters = share(config.max_event_bytes)
        self._input = None if input is None else capture(input, self._characters)
        self._conversation = context.scope().conversation
        self._context = new_span(context.current_span())
        self._began: float | None = None

    @property
    def trace_id(self) -> str:
        """The id of its trace: 32 hex digits."""
        return self._context.trace_id

    @property
    def span_id(self) -> str:
        """Its own id: 16 hex digits."""
        return self._context.span_id

    @property
    def parent_span_id(self) -> str | None:
        """The id of the enclosing span, or None."""
        return self._context.parent_span_id

    def _enter(self) -> None:
        """Become the current span, until `_leave`."""
        if self._began is not None:
            raise ValidationError("span", "was entered before; make a new one")
        self._began = time.monotonic()
        context.enter_span(self._context)

    def _leave(self) -> float:
        """Make the enclosing span the current one; return the duration in milliseconds."""
        began = time.monotonic() if self._began is None else self._began
        context.leave_span(self._context)
        return milliseconds_since(began)

    def _finish(self, duration_ms: float, error: BaseException | None) -> None:
        """Log the span. Errors are logged and suppressed, those of the application's values too."""
        data: dict[str, Any] = {"name": self.name, "duration_ms": duration_ms}
        with Boundary(self._owner, f"the span {self.name!r}"):
            try:
                data["input"] = self._input
                self._add_error(data, error)
                data["output"] = capture(self.output, self._characters)
                data["attributes"] = capture(self.attributes, self._characters)
            finally:  # an interrupt in a value's own code does not lose the event
                self._record(data)

    def _add_error(self, data: dict[str, Any], error: BaseException | None) -> None:
        said: object = self.error
        if issubclass(type(error), GeneratorExit):  # the consumer of a generator may stop
            error = None
        if error is None and issubclass(type(said), BaseException):
            error = cast("BaseException", said)
        if error is not None:
            data["error_type"] = type_name(error)
            data["error"] = error_text(error, self._characters)
        elif said is not None:
            data["error"] = capture(said, self._characters)
        data["traceback"] = end(self._context, error, self._config)

    def _record(self, data: dict[str, Any]) -> None:
        about = self._conversation
        self.event_id = self._tracker()._record_gathered(
            SPAN_RECORDED,
            {name: value for name, value in data.items() if value not in (None, {})},
            gathered=("input", "output", "attributes", "error", "traceback"),
            agent_id=None if about is None else about.agent_id,
            session_id=None if about is None else about.session_id,
            user_id=None if about is None else about.user_id,
            span=self._context,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.span_id} of trace {self.trace_id}>"


class Span(BaseSpan):
    """A span made by `AgentPerformanceTracker.span`, to use as a ``with`` or ``async with`` block.

    Inside the block it is the current span: what is logged there belongs to it, and spans, observed
    functions and tool blocks that begin there are its children. It is logged when the block is
    left; an exception that escapes is recorded and raised again, unchanged. A failure of the
    tracker never affects the block: it is logged once, under the logger ``tracker``.

    Attributes:
        name: The name.
        output: The result: any value. Set it inside the block.
        attributes: More values by name; a dict, to change inside the block.
        error: Why the step failed, where no exception escapes; by default that exception's message.
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
        self._finish(self._leave(), error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, traceback)

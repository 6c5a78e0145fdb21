"""The current conversation, span, observed call and context of events.

They are kept in a `contextvars` variable: `asyncio` tasks inherit them from the code that creates
the task, and what is set in one task is not seen in another. New threads have none: pass them a
function made by `bind`. `asyncio.to_thread` copies the context by itself; `loop.run_in_executor`,
`threading.Thread` and `concurrent.futures` executors do not::

    with tracker.conversation("agent_123"):
        executor.submit(bind(look_up), "flights")
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tracker import validation
from tracker.errors import ValidationError
from tracker.generators import GeneratorFunction, InContext, drive, drive_async, is_a, named
from tracker.span_context import API, foreign_span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from typing_extensions import ParamSpec

    from tracker.span_context import SpanContext

    P = ParamSpec("P")
    R = TypeVar("R")


class Conversation(Protocol):
    """The part of `ActiveConversation` that the current conversation needs."""

    session_id: str
    agent_id: str
    user_id: str | None
    _span: SpanContext | None
    """What is logged in the conversation belongs to this span, if no other is current."""

    def _user_spoke(self, when: float | None) -> None:
        """Begin a turn; measure response times from this time of the monotonic clock, if given."""

    def _agent_spoke(self) -> None:
        """Let the next message of the user begin a turn."""


class Call(NamedTuple):
    """An observed call that has not returned yet."""

    call_id: str
    depth: int


class Added(Protocol):
    """The part of `ContextBlock` that an event needs."""

    items: dict[str, Any]


class Scope(NamedTuple):
    """The current conversation, call, context block and span. Never changed, only replaced."""

    conversation: Conversation | None = None
    call: Call | None = None
    added: Added | None = None
    span: SpanContext | None = None


NOTHING = Scope()
SCOPE: ContextVar[Scope] = ContextVar("tracker_scope", default=NOTHING)
"""The current scope. `scope` returns it; every logging call reads it without that call."""


def bind(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs `function` in the current context, for use in other threads.

    Each call runs in its own copy of the context as it is now, including the variables of other
    libraries, so the result may be called many times and by several threads at once.

    Generators and coroutines that it returns run in that context until they end, whichever threads
    or tasks consume them.

    Args:
        function: Any function, generator function or coroutine function.

    Raises:
        ValidationError: if it cannot be called.
    """
    validation.check_function("function", function)
    bound: Callable[P, R] = _bound(function, contextvars.copy_context())
    return bound


def _bound(function: Any, context: contextvars.Context) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return context.copy().run(function, *args, **kwargs)

    def steps(*args: Any, **kwargs: Any) -> Any:
        run = context.copy().run
        return named(drive(run(function, *args, **kwargs), run), function)

    def steps_async(*args: Any, **kwargs: Any) -> Any:
        own = context.copy()
        made = own.run(function, *args, **kwargs)

        async def run(step: Callable[[], Awaitable[Any]]) -> Any:
            return await InContext(own, step())

        return named(drive_async(made, run), function)

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        own = context.copy()
        return await InContext(own, own.run(function, *args, **kwargs))

    if is_a(inspect.isasyncgenfunction, function):
        return GeneratorFunction(function, steps_async)
    if is_a(inspect.isgeneratorfunction, function):
        return GeneratorFunction(function, steps)
    wrapper = call_async if is_a(inspect.iscoroutinefunction, function) else call
    return functools.wraps(function)(wrapper)


def scope() -> Scope:
    """Return the current scope."""
    return SCOPE.get()


def enter(new: Scope) -> None:
    """Make `new` the current scope."""
    SCOPE.set(new)


def current_span() -> SpanContext | None:
    """Return the innermost span that the running code is in: one of ours or of OpenTelemetry.

    A span of OpenTelemetry that was current already when ours became current is not the inner one.
    """
    scope = SCOPE.get()
    span = scope.span
    if span is None and scope.conversation is not None:
        span = scope.conversation._span
    if API not in sys.modules:
        return span
    foreign = foreign_span()
    if foreign is None or (
        span is not None and (span.beside == foreign.text or span.span_id == foreign.span_id)
    ):
        return span
    return foreign


def enter_span(span: SpanContext) -> None:
    """Make `span` the current one, until `leave_span`."""
    scope = SCOPE.get()
    span.outer = scope.span
    become_foreign(span)
    SCOPE.set(scope._replace(span=span))


def leave_span(span: SpanContext) -> None:
    """Make the enclosing span, if any, the current one."""
    span.left = True
    cease_foreign(span)
    scope = SCOPE.get()
    # Blocks may be left in any order and in another context; see `ActiveConversation._step_back`.
    if scope.span is span:
        outer = span.outer
        while outer is not None and outer.left:
            outer = outer.outer
        SCOPE.set(scope._replace(span=outer))
        span.outer = None  # or tasks that start one another would make a chain without end


def note_foreign(span: SpanContext) -> None:
    """Have `span`, which becomes current, come before the current span of OpenTelemetry."""
    foreign = foreign_span()
    span.beside = None if foreign is None else foreign.text


_attach: Callable[[SpanContext], Callable[[], None]] | None = None


def nest_with(attach: Callable[[SpanContext], Callable[[], None]] | None) -> None:
    """Have `attach` called with each span that becomes current, and its result when it is left.

    None ends that.
    """
    global _attach
    _attach = attach


def become_foreign(span: SpanContext) -> None:
    """Have `span`, which becomes current, come before OpenTelemetry's, or be that one as well."""
    note_foreign(span)
    if _attach is not None:
        span.release = _attach(span)


def cease_foreign(span: SpanContext) -> None:
    """Undo `become_foreign`."""
    release, span.release = span.release, None
    if release is not None:
        release()


class inside:  # noqa: N801 - reads as a word: `with inside(span):`
    """A block whose events belong to `span`; with None, to the span that is current anyway."""

    def __init__(self, span: SpanContext | None) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._before = SCOPE.get()
        if self._span is not None:
            note_foreign(self._span)
            SCOPE.set(self._before._replace(span=self._span))

    def __exit__(self, *_: object) -> None:
        SCOPE.set(self._before)


def resolve(session_id: object) -> str:
    """Return `session_id` checked or, for None, the id of the current conversation.

    Raises:
        ValidationError: if the id is not allowed, or it is None and no conversation is current.
    """
    conversation = SCOPE.get().conversation
    if session_id is None:
        if conversation is None:
            raise ValidationError(
                "session_id",
                "is None, and no conversation is current; pass a session_id, or call this inside "
                "`with tracker.conversation(...)`",
            )
        return conversation.session_id
    try:
        return validation.check_id("session_id", session_id)
    except ValidationError as error:
        if conversation is None:
            raise
        raise ValidationError(
            "session_id",
            f"{error.problem}; inside this block it may be left out if everything is passed by "
            "keyword, as in content= or quality_score=",
        ) from None

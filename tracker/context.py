"""The current conversation, the current observed call and the current context of events.

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
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tracker import validation
from tracker.errors import ValidationError
from tracker.generators import GeneratorFunction, InContext, drive, drive_async, is_a, named

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    R = TypeVar("R")


class Conversation(Protocol):
    """The part of `ActiveConversation` that the current conversation needs."""

    session_id: str
    agent_id: str
    user_id: str | None

    def _time_from(self, when: float) -> None:
        """Measure response times from this time of the monotonic clock."""


class Call(NamedTuple):
    """An observed call that has not returned yet."""

    call_id: str
    depth: int


class Added(Protocol):
    """The part of `ContextBlock` that an event needs."""

    items: dict[str, Any]


class Scope(NamedTuple):
    """The current conversation, call and context block. Never changed, only replaced."""

    conversation: Conversation | None = None
    call: Call | None = None
    added: Added | None = None


_NOTHING = Scope()
_scope: ContextVar[Scope] = ContextVar("tracker_scope", default=_NOTHING)


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
    return _scope.get()


def enter(new: Scope) -> None:
    """Make `new` the current scope."""
    _scope.set(new)


def resolve(session_id: object) -> str:
    """Return `session_id` checked or, for None, the id of the current conversation.

    Raises:
        ValidationError: if the id is not allowed, or it is None and no conversation is current.
    """
    conversation = _scope.get().conversation
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


def user_spoke(session_id: str, when: float) -> None:
    """Note when the user spoke, if `session_id` is the current conversation."""
    conversation = _scope.get().conversation
    if conversation is not None and conversation.session_id == session_id:
        conversation._time_from(when)

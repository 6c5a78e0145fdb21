"""The conversation, and the observed call in it, that the running code belongs to.

They are kept in a `contextvars` variable, so `asyncio` tasks inherit them from the code that made
the task, and nothing set in one task is seen in another. Threads start with nothing: give them a
function made by `bind`. `asyncio.to_thread` does that by itself; `loop.run_in_executor`,
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
    """What can be current: `tracker.trackers.conversation.ActiveConversation`."""

    session_id: str
    agent_id: str
    user_id: str | None

    def _time_from(self, when: float) -> None:
        """Measure response times from a time of the monotonic clock."""


class Call(NamedTuple):
    """An observed call that is under way."""

    call_id: str
    depth: int


class Scope(NamedTuple):
    """What the running code belongs to; never changed, only replaced."""

    conversation: Conversation | None = None
    call: Call | None = None


_NOTHING = Scope()
_scope: ContextVar[Scope] = ContextVar("tracker_scope", default=_NOTHING)


def bind(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` with the present context: for threads, which else start with none.

    Each call runs in a copy of the context as it is now, other libraries' variables included, so
    the result may be called many times and by several threads at once.

    Generators and coroutines that it makes run in that context to their end, whichever threads or
    tasks consume them.

    Args:
        function: Any function, generator function or coroutine function.
    """
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
    """Return what the running code belongs to."""
    return _scope.get()


def enter(new: Scope) -> None:
    """Let the code that runs from here on belong to `new`."""
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
    """Tell the current conversation, if it is that one, that its user spoke at a monotonic time."""
    conversation = _scope.get().conversation
    if conversation is not None and conversation.session_id == session_id:
        conversation._time_from(when)

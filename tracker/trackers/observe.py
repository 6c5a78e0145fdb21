"""`AgentPerformanceTracker.observe`: records calls of functions when they end.

Each call becomes one ``function.observed`` event with these fields:

==================  ==========================================================================
``name``            the function's qualified name, or the given one
``arguments``       the arguments by parameter, without ``self`` and ``cls``
``result``          the returned value; for generators, the list of the yielded items
``items``           the number of items a generator yielded, including those not in ``result``
``error``           the message of the exception that escaped
``error_type``      the name of its type
``traceback``       where it came from, unless a call or span inside tells
``duration_ms``     measured on the monotonic clock; for a generator from the first item to its
                    end, including the time of its consumer
``call_id``         the id of this call
``parent_call_id``  the id of the enclosing observed call, if any
``depth``           the number of enclosing observed calls: 0 for the outermost
==================  ==========================================================================

Fields that do not apply are left out. `tracker.trackers.capture` describes how values that JSON
cannot represent are stored; long values are truncated and marked with ``…``, so that a call always
fits into an event.

A generator is recorded when it is exhausted, fails, or is closed; one that was never started is
not. Its arguments, its conversation and its enclosing call are those at its creation, wherever it
is consumed. A call of a function that returns a coroutine or generator without being one ends when
it returns.
"""

from __future__ import annotations

import functools
import inspect
import time
from typing import TYPE_CHECKING, Any, Protocol

from tracker import context, validation
from tracker.context import Call
from tracker.elapsed import milliseconds_since
from tracker.errors import ValidationError
from tracker.generators import GeneratorFunction, drive, drive_async, is_a, named
from tracker.ids import new_id
from tracker.span_context import new_span
from tracker.trackers.capture import (
    Capture,
    capture,
    readable,
    type_name,
)
from tracker.trackers.reporting import Boundary, error_text
from tracker.trackers.tracebacks import end

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from typing import TypeVar

    from typing_extensions import ParamSpec

    from tracker.config import APIConfig
    from tracker.span_context import SpanContext
    from tracker.trackers.conversation import ActiveConversation

    P = ParamSpec("P")
    R = TypeVar("R")

FUNCTION_OBSERVED = "function.observed"


class _Tracker(Protocol):
    """The part of `AgentPerformanceTracker` that calls are recorded with."""

    @property
    def config(self) -> APIConfig: ...

    def conversation(self, agent_id: str) -> ActiveConversation: ...

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


class Observer:
    """Records the calls of one function. It has no state of a call and is thread-safe.

    Raises:
        ValidationError: if it is given something that is not a function.
    """

    def __init__(
        self,
        characters: int,
        tracker: Callable[[], _Tracker],
        function: Callable[..., Any],
        name: str | None,
        agent_id: str | None,
        capture_input: bool,
        capture_output: bool,
    ) -> None:
        if not callable(function) or inspect.isclass(function):
            raise ValidationError(
                "function", f"is of type {type_name(function)}; give a function, method or property"
            )
        self.characters = characters
        self.tracker = tracker
        self.agent_id = agent_id
        self.capture_input = capture_input
        self.capture_output = capture_output
        self.name = name or _name_of(function)
        self._function = function
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except Exception:  # noqa: BLE001 - some built-in functions have none; a proxy may raise
            self._signature = None

    def wrapped(self) -> Any:
        """Return a function of the same kind that records each call."""
        if is_a(inspect.isasyncgenfunction, self._function):
            return GeneratorFunction(self._function, self._async_generator)
        if is_a(inspect.isgeneratorfunction, self._function):
            return GeneratorFunction(self._function, self._generator)
        if is_a(inspect.iscoroutinefunction, self._function):
            return self._coroutine()
        return self._plain()

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by parameter."""
        if self._signature is not None:
            try:
                named = dict(self._signature.bind(*args, **kwargs).arguments)
            except TypeError:
                pass  # the call itself will raise it
            else:
                first = next(iter(named), None)
                if first in ("self", "cls"):
                    del named[first]
                return named
        return {"args": args, "kwargs": kwargs}

    def _plain(self) -> Callable[..., Any]:
        function = self._function

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = Observation(self, args, kwargs)
            call.begin()
            try:
                with call:
                    result = function(*args, **kwargs)
            except BaseException as error:
                call.over(error=error)
                raise
            call.over(result)
            return result

        return wrapper

    def _coroutine(self) -> Callable[..., Any]:
        function = self._function

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = Observation(self, args, kwargs)
            await self.apart(call.begin)
            try:
                with call:
                    result = await function(*args, **kwargs)
            except GeneratorExit as error:  # closed before its end: it must not await anything
                call.over(error=error)
                raise
            except BaseException as error:
                await self.apart(call.over, error=error)
                raise
            await self.apart(call.over, result)
            return result

        return wrapper

    async def apart(self, record: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run code of a coroutine or async generator that may write; here it runs directly."""
        return record(*args, **kwargs)

    def _generator(self, /, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        call = GeneratorObservation(self, args, kwargs)
        steps = self._function(*args, **kwargs)
        made: Generator[Any, Any, Any] = named(self._consumed(call, steps), self._function)
        return made

    def _consumed(self, call: GeneratorObservation, steps: Any) -> Generator[Any, Any, Any]:
        call.begin()
        try:
            returned = yield from drive(steps, call.step)
        except BaseException as error:
            call.over(error=error)
            raise
        call.over()
        return returned

    def _async_generator(self, /, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        call = GeneratorObservation(self, args, kwargs)
        steps = self._function(*args, **kwargs)
        made: AsyncGenerator[Any, Any] = named(self._consumed_async(call, steps), self._function)
        return made

    async def _consumed_async(
        self, call: GeneratorObservation, steps: Any
    ) -> AsyncGenerator[Any, Any]:
        await self.apart(call.begin)
        inner = drive_async(steps, call.step_async)
        step: Callable[[], Awaitable[Any]] = inner.__anext__
        try:
            while True:
                try:
                    item = await step()
                except StopAsyncIteration:
                    break
                try:
                    step = functools.partial(inner.asend, (yield item))
                except BaseException as error:  # noqa: BLE001 - passed on
                    step = functools.partial(inner.athrow, error)
        except BaseException as error:
            await self.apart(call.over, error=error)
            raise
        await self.apart(call.over)


def on_function(function: Any, wrap: Callable[[Any], Any]) -> Any:
    """Return a function or method with its function wrapped by `wrap`."""
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(wrap(function.__func__))
    if isinstance(function, property):
        getter = None if function.fget is None else wrap(function.fget)
        return type(function)(getter, function.fset, function.fdel, function.__doc__)
    return wrap(function)


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    try:
        name = str.__str__(function.__qualname__)
    except Exception:  # noqa: BLE001 - it may have no name; a proxy may raise
        name = type_name(function)
    return readable(name[: validation.MAX_ID_LENGTH // 2])


class Observation:
    """One observed call. The function's code, or one step of it, runs in its ``with`` block.

    Only inside the block is it the current call: the consumer of a generator, which runs between
    its steps in the same context, is not part of it. Its conversation, enclosing call and arguments
    are those of its creation; `begin` starts it.
    """

    def __init__(self, observer: Observer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._observer = observer
        self._outer = context.scope()
        self._conversation = self._outer.conversation
        self._own: ActiveConversation | None = None
        parent = self._outer.call
        call = Call(new_id(), 0 if parent is None else parent.depth + 1)
        self._span = new_span(context.current_span())
        self._inner = self._outer._replace(call=call, span=self._span)
        self._data: dict[str, Any] = {
            "name": observer.name,
            "call_id": call.call_id,
            "parent_call_id": None if parent is None else parent.call_id,
            "depth": call.depth,
        }
        if observer.capture_input:
            self._data["arguments"] = self._arguments(args, kwargs)

    def _arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            given = self._observer.arguments(args, kwargs)
        except BaseException as error:
            if validation.is_interrupt(error):
                raise
            given = {"args": args, "kwargs": kwargs}
        return capture(given, self._observer.characters)

    def begin(self) -> None:
        """Start the call, and its own conversation if it has one.

        Raises:
            TrackerError: only if an async tracker cannot be opened.
        """
        self._tracker = self._observer.tracker()
        agent_id = self._observer.agent_id
        if self._conversation is None and agent_id is not None:
            self._conversation = self._own = self._tracker.conversation(agent_id)
            self._inner = self._inner._replace(conversation=self._own)
            with self._boundary():
                self._own._start(self._span)
        self._began = time.monotonic()

    def __enter__(self) -> None:
        self._outer = context.scope()
        if self._inner.span is not None:
            context.become_foreign(self._inner.span)
        context.enter(self._inner)

    def __exit__(self, *_: object) -> None:
        self._inner = context.scope()
        if self._inner.span is not None:
            context.cease_foreign(self._inner.span)
        context.enter(self._outer)

    def over(self, result: object = None, error: BaseException | None = None) -> None:
        """Record the call, and end its own conversation if it has one.

        Errors are logged and suppressed; exceptions that unwind the program are raised afterwards.
        """
        with self._boundary():
            self._data["duration_ms"] = milliseconds_since(self._began)
            try:
                if error is not None:
                    self._data["error_type"] = type_name(error)
                    self._data["error"] = error_text(error, self._observer.characters)
                self._data["traceback"] = end(self._span, error, self._tracker.config)
                self._data.update(self._output(result, error))
            finally:
                self._record()
        if self._own is not None:
            with self._boundary():
                self._own._finish(error)

    def _output(self, result: object, error: BaseException | None) -> dict[str, Any]:
        if error is not None or not self._observer.capture_output:
            return {}
        return {"result": capture(result, self._observer.characters)}

    def _record(self) -> None:
        conversation = self._conversation
        agent_id, session_id, user_id = self._observer.agent_id, None, None
        if conversation is not None:
            agent_id = agent_id or conversation.agent_id
            session_id, user_id = conversation.session_id, conversation.user_id
        self._tracker._record_gathered(
            FUNCTION_OBSERVED,
            self._data,
            gathered=("arguments", "result", "error", "traceback"),
            agent_id=agent_id,
            session_id=session_id,
            user_id=user_id,
            span=self._span,
        )

    def _boundary(self) -> Boundary:
        return Boundary(self._tracker, f"a call of {self._observer.name}")


class GeneratorObservation(Observation):
    """An observed generator, from its creation to its end."""

    def __init__(self, observer: Observer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(observer, args, kwargs)
        self._capture = Capture(observer.characters)
        self._kept: list[Any] = []
        self._count = 0

    def step(self, take: Callable[[], Any]) -> Any:
        """Return the next item."""
        with self:
            item = take()
        self._yielded(item)
        return item

    async def step_async(self, take: Callable[[], Awaitable[Any]]) -> Any:
        """Return the next item of an async generator."""
        with self:
            item = await take()
        self._yielded(item)
        return item

    def _yielded(self, item: object) -> None:
        """Keep the present value of an item, within limits."""
        self._count += 1
        if self._observer.capture_output and not self._capture.full:
            with self._boundary():
                self._kept.append(self._capture.take(item))

    def over(self, result: object = None, error: BaseException | None = None) -> None:
        """Record the call. A consumer may close it early; that is not a failure."""
        super().over(result, None if issubclass(type(error), GeneratorExit) else error)

    def _output(self, result: object, error: BaseException | None) -> dict[str, Any]:
        kept = {"result": self._kept} if self._observer.capture_output else {}
        return {"items": self._count, **kept}

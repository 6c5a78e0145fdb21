"""`AgentPerformanceTracker.observe`: calls of functions, recorded when they are over.

Each becomes one ``function.observed`` event with these fields:

==================  ==========================================================================
``name``            the function's qualified name, or the one given
``arguments``       what it was called with, by parameter; without ``self`` and ``cls``
``result``          what it returned; for generators the list of what they yielded
``items``           how many items a generator yielded, kept in ``result`` or not
``error``           what the exception that escaped says
``error_type``      its type's name
``duration_ms``     on the monotonic clock; a generator's runs from its first item to its end, its
                    consumer's time included
``call_id``         this call's id
``parent_call_id``  the observed call that it was made in, if any
``depth``           how many observed calls it was made in: 0 for the outermost
==================  ==========================================================================

Fields that do not apply are left out. A value that JSON cannot hold becomes its ``repr()``; what
is long is cut off and marked with ``…``, so that a call always fits into an event.

A generator is recorded when it is exhausted, fails, or is closed; one that never began is not.
A function that only returns a coroutine or generator, without being one, ends when it returns.
"""

from __future__ import annotations

import functools
import inspect
import math
import reprlib
import sys
import time
from typing import TYPE_CHECKING, Any

from tracker import context
from tracker.context import Call, Scope
from tracker.errors import ValidationError
from tracker.ids import new_id
from tracker.redaction.uncut import ROOM, cut, cut_length
from tracker.trackers.conversation import error_text, say_once
from tracker.validation import MAX_ID_LENGTH, MAX_INTEGER_BITS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from typing import TypeVar

    from typing_extensions import ParamSpec

    from tracker.trackers.conversation import ActiveConversation
    from tracker.trackers.performance import AgentPerformanceTracker

    P = ParamSpec("P")
    R = TypeVar("R")

FUNCTION_OBSERVED = "function.observed"

_MAX_DEPTH = 32
_MAX_REPR = 1_000
_MAX_BYTES = 200
_MAX_KEY = 1_000
_NODE = 4
"""Characters that a value costs besides its own."""


def share(max_event_bytes: int) -> int:
    """Return how many characters of one field always fit into an event, beside three others.

    A character takes at most 6 bytes, as JSON's escape of a control character.
    """
    return max_event_bytes // 24


def capture(value: object, characters: int) -> Any:
    """Return `value` as JSON can hold it, in about so many characters at most. Never raises."""
    return Capture(characters).take(value)


class Capture:
    """Takes values apart, one after the other, until its characters are used up."""

    def __init__(self, characters: int) -> None:
        self._left = characters

    @property
    def full(self) -> bool:
        """Whether nothing more fits."""
        return self._left <= 0

    def take(self, value: object) -> Any:
        """Return `value` as JSON can hold it. Never raises."""
        try:
            return self._of(value, 0)
        except Exception as error:  # noqa: BLE001 - a value's own code: its repr, its iteration
            return f"<a {type(value).__name__} that cannot be shown: {type(error).__name__}>"

    def _of(self, value: object, depth: int) -> Any:
        self._left -= _NODE
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, int) and value.bit_length() <= min(MAX_INTEGER_BITS, self._left * 3):
            self._left -= value.bit_length() // 3
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            self._left -= 20
            return float(value)
        if depth < _MAX_DEPTH and isinstance(value, dict):
            return self._dict(value, depth)
        if depth < _MAX_DEPTH and isinstance(value, (list, tuple)):
            return self._list(value, depth)
        most = _MAX_BYTES if isinstance(value, (bytes, bytearray)) else _MAX_REPR
        return self._text(_shown(value), most)

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, item in value.items():
            if self.full:
                kept["…"] = f"{len(value) - len(kept):,} more"
                break
            kept[self._text(key if isinstance(key, str) else _shown(key), _MAX_KEY)] = self._of(
                item, depth + 1
            )
        return kept

    def _list(self, value: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        kept: list[Any] = []
        for item in value:
            if self.full:
                kept.append(f"… {len(value) - len(kept):,} more")
                break
            kept.append(self._of(item, depth + 1))
        return kept

    def _text(self, text: str, most: int = sys.maxsize) -> str:
        text = cut(text, min(max(self._left, 0), most))
        self._left -= cut_length(text)
        return text


_repr = reprlib.Repr()
# Far more than is kept: a text may only be cut when it is masked.
_repr.maxother = _repr.maxstring = 2 * ROOM
_repr.maxlong = _MAX_REPR


def _shown(value: object) -> str:
    return (
        f"{value[: _MAX_BYTES + ROOM]!r}"
        if isinstance(value, (bytes, bytearray))
        else _repr.repr(value)
    )


class Observer:
    """Records the calls of one function. Holds no state of a call; any thread's.

    Raises:
        ValidationError: if it is given something that is not a function.
    """

    def __init__(
        self,
        tracker: Callable[[], AgentPerformanceTracker],
        function: Callable[..., Any],
        name: str | None,
        agent_id: str | None,
        capture_input: bool,
        capture_output: bool,
    ) -> None:
        if not callable(function) or inspect.isclass(function):
            raise ValidationError(
                "function",
                f"is {reprlib.repr(function)}; give a function, and put @classmethod above it",
            )
        self.tracker = tracker
        self.agent_id = agent_id
        self.capture_input = capture_input
        self.capture_output = capture_output
        shown: str = getattr(function, "__qualname__", type(function).__name__)
        self.name = name or shown[:MAX_ID_LENGTH]
        self._function = function
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (ValueError, TypeError):  # some built-in functions have none
            self._signature = None

    def wrapped(self) -> Any:
        """Return the function that callers get: of the same kind, with each call recorded."""
        if inspect.isasyncgenfunction(self._function):
            return self._async_generator()
        if inspect.isgeneratorfunction(self._function):
            return self._generator()
        if inspect.iscoroutinefunction(self._function):
            return self._coroutine()
        return self._plain()

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return what the function was called with, by parameter."""
        if self._signature is not None:
            try:
                named = dict(self._signature.bind(*args, **kwargs).arguments)
            except TypeError:
                pass  # the call itself will say so
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
            call = await self.apart(Observation, self, args, kwargs)
            try:
                with call:
                    result = await function(*args, **kwargs)
            except GeneratorExit as error:  # thrown away half-way: it may await nothing any more
                call.over(error=error)
                raise
            except BaseException as error:
                await self.apart(call.over, error=error)
                raise
            await self.apart(call.over, result)
            return result

        return wrapper

    async def apart(self, record: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run what may write, of a coroutine or async generator; here at once, as `record` does."""
        return record(*args, **kwargs)

    # What a consumer throws in, GeneratorExit by `close` included, is handed on to the function's
    # own generator, which decides what to make of it.

    def _generator(self) -> Callable[..., Any]:
        function = self._function

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            call = GeneratorObservation(self, args, kwargs)
            try:
                with call:
                    steps = function(*args, **kwargs)
                step: Callable[[], Any] = functools.partial(next, steps)
                while True:
                    with call:
                        try:
                            item = step()
                        except StopIteration as stop:
                            returned = stop.value
                            break
                    call.yielded(item)
                    try:
                        step = functools.partial(steps.send, (yield item))
                    except BaseException as error:  # noqa: BLE001 - handed on
                        step = functools.partial(steps.throw, error)
            except BaseException as error:
                call.over(error=error)
                raise
            call.over()
            return returned

        return wrapper

    def _async_generator(self) -> Callable[..., Any]:
        function = self._function

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            call = await self.apart(GeneratorObservation, self, args, kwargs)
            try:
                with call:
                    steps = function(*args, **kwargs)
                step: Callable[[], Any] = steps.__anext__
                while True:
                    with call:
                        try:
                            item = await step()
                        except StopAsyncIteration:
                            break
                    call.yielded(item)
                    try:
                        step = functools.partial(steps.asend, (yield item))
                    except BaseException as error:  # noqa: BLE001 - handed on
                        step = functools.partial(steps.athrow, error)
            except BaseException as error:
                await self.apart(call.over, error=error)
                raise
            await self.apart(call.over)

        return wrapper


class Observation:
    """One call under way. As a ``with`` block it runs the function's code, or one step of it.

    Only inside the block is the call the current one: a generator's consumer, which runs between
    its steps in the same context, does not belong to the call.
    """

    def __init__(self, observer: Observer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._observer = observer
        self._tracker = observer.tracker()
        self._outer = context.scope()
        self._conversation = self._outer.conversation
        self._own: ActiveConversation | None = None
        if self._conversation is None and observer.agent_id is not None:
            self._conversation = self._own = self._tracker.conversation(observer.agent_id)
            self._safely(self._own.start)
        parent = self._outer.call
        call = Call(new_id(), 0 if parent is None else parent.depth + 1)
        self._inner = Scope(self._conversation, call)
        self._characters = share(self._tracker.config.max_event_bytes)
        self._data: dict[str, Any] = {
            "name": observer.name,
            "call_id": call.call_id,
            "parent_call_id": None if parent is None else parent.call_id,
            "depth": call.depth,
        }
        if observer.capture_input:
            self._data["arguments"] = capture(observer.arguments(args, kwargs), self._characters)
        self._began = time.monotonic()

    def __enter__(self) -> None:
        self._outer = context.scope()
        context.enter(self._inner)

    def __exit__(self, *_: object) -> None:
        self._inner = context.scope()
        context.enter(self._outer)

    def over(self, result: object = None, error: BaseException | None = None) -> None:
        """Record the call, and end the conversation if it is the call's own. Never raises."""
        self._data["duration_ms"] = round((time.monotonic() - self._began) * 1000, 2)
        if error is not None:
            self._data["error"] = error_text(error, self._characters)
            self._data["error_type"] = type(error).__name__
        self._data.update(self._output(result, error))
        self._record(error)

    def _output(self, result: object, error: BaseException | None) -> dict[str, Any]:
        if error is not None or not self._observer.capture_output:
            return {}
        return {"result": capture(result, self._characters)}

    def _record(self, error: BaseException | None) -> None:
        conversation = self._conversation
        agent_id, session_id, user_id = self._observer.agent_id, None, None
        if conversation is not None:
            agent_id = agent_id or conversation.agent_id
            session_id, user_id = conversation.session_id, conversation.user_id
        self._safely(
            lambda: self._tracker._record(
                FUNCTION_OBSERVED,
                self._data,
                agent_id=agent_id,
                session_id=session_id,
                user_id=user_id,
            )
        )
        if self._own is not None:
            self._safely(functools.partial(self._own.finish, error))

    def _safely(self, record: Callable[[], object]) -> None:
        try:
            record()
        except Exception as error:  # noqa: BLE001 - what is observed must not fail because of it
            say_once(self._tracker, f"a call of {self._observer.name}", error)


class GeneratorObservation(Observation):
    """One generator's life, from its first step to its end."""

    def __init__(self, observer: Observer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(observer, args, kwargs)
        self._capture = Capture(self._characters)
        self._kept: list[Any] = []
        self._count = 0

    def yielded(self, item: object) -> None:
        """Keep an item as it is now, within bounds."""
        self._count += 1
        if self._observer.capture_output and not self._capture.full:
            self._kept.append(self._capture.take(item))

    def over(self, result: object = None, error: BaseException | None = None) -> None:
        """Record it. Its consumer may close it early; that is no failure."""
        super().over(result, None if isinstance(error, GeneratorExit) else error)

    def _output(self, result: object, error: BaseException | None) -> dict[str, Any]:
        kept = {"result": self._kept} if self._observer.capture_output else {}
        return {"items": self._count, **kept}

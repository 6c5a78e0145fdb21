"""Generators and coroutines whose steps are run by another function, for example in a context."""

from __future__ import annotations

import functools
import inspect
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
    from contextvars import Context
    from types import CodeType
    from typing import TypeVar

    T = TypeVar("T")


def is_a(test: Callable[[Any], bool], function: object) -> bool:
    """Return True if a test of `inspect` is true of a function or of an object's ``__call__``."""
    return test(function) or test(type(function).__call__)


def drive(steps: Any, run: Callable[[Callable[[], Any]], Any]) -> Generator[Any, Any, Any]:
    """Yield what the generator `steps` yields and return what it returns; `run` runs each step.

    Whatever a consumer sends or throws, including GeneratorExit by `close`, is passed to `steps`.
    """
    step: Callable[[], Any] = functools.partial(next, steps)
    while True:
        try:
            item = run(step)
        except StopIteration as stop:
            return stop.value
        try:
            step = functools.partial(steps.send, (yield item))
        except BaseException as error:  # noqa: BLE001 - passed on
            step = functools.partial(steps.throw, error)


async def drive_async(
    steps: AsyncGenerator[Any, Any], run: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
) -> AsyncGenerator[Any, Any]:
    """Yield what an async generator yields; `run` runs each step. See `drive`."""
    step: Callable[[], Awaitable[Any]] = steps.__anext__
    while True:
        try:
            item = await run(step)
        except StopAsyncIteration:
            return
        try:
            step = functools.partial(steps.asend, (yield item))
        except BaseException as error:  # noqa: BLE001 - passed on
            step = functools.partial(steps.athrow, error)


class InContext:
    """An awaitable whose code runs in a given context, whichever task awaits it."""

    def __init__(self, context: Context, awaitable: Awaitable[Any]) -> None:
        self._context = context
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, Any, Any]:
        return drive(self._awaitable.__await__(), self._context.run)


class GeneratorFunction:
    """A wrapper of a generator function that runs code when it is called, not when it is iterated.

    A function that returns a generator would do that too, but frameworks would not recognize it
    with `inspect.isgeneratorfunction` or `inspect.isasyncgenfunction`. These accept an object that
    has the attributes of a function.
    """

    def __init__(self, function: Callable[..., Any], call: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.__name__: str = getattr(function, "__name__", type(function).__name__)
        self.__code__ = _code(function)
        self.__defaults__ = getattr(function, "__defaults__", None)
        self.__kwdefaults__ = getattr(function, "__kwdefaults__", None)
        self.__annotations__ = getattr(function, "__annotations__", {})
        self._call = call

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the wrapper's code and return the generator."""
        return self._call(*args, **kwargs)

    def __get__(
        self, instance: object, owner: type | None = None
    ) -> GeneratorFunction | MethodType:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> str:
        """Copy and pickle by name, as functions are."""
        return str(getattr(self, "__qualname__", self.__name__))

    def __repr__(self) -> str:
        return f"<generator function {self.__name__}>"


def _code(function: Any) -> CodeType:
    while not hasattr(function, "__code__"):
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        else:
            function = type(function).__call__
    code: CodeType = function.__code__
    return code


def named(steps: Any, function: Any) -> Any:
    """Return a generator with the name of `function`, for tracebacks and warnings."""
    steps.__name__ = getattr(function, "__name__", steps.__name__)
    steps.__qualname__ = getattr(function, "__qualname__", steps.__qualname__)
    return steps

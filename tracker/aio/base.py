"""`AsyncBaseTracker`: runs the calls of a tracker in threads, and awaits them."""

from __future__ import annotations

import functools
import weakref
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from tracker.aio.calls import Calls
from tracker.context_block import AddsContext
from tracker.errors import TrackerClosedError
from tracker.process_local import ProcessLocal
from tracker.sync.flush import FlushResult
from tracker.trackers.base import BaseTracker, check_destination, settings_of
from tracker.validation import check_timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from typing_extensions import Self

    from tracker.config import APIConfig
    from tracker.sync.destination import Destination

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=BaseTracker)


class Awaited(ABC):
    """Base of classes with awaited methods of another object: see `logs`, `reads` and `waits`."""

    _calls: Calls

    @abstractmethod
    def _target(self) -> Any:
        """Return the object whose methods are awaited. Called in the threads of `_calls`."""

    def _call(self, method: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        return method(self._target(), *args, **kwargs)


def logs(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return an awaited version of a logging method: the event is durable when the await ends."""

    @functools.wraps(method)
    async def awaited(self: Awaited, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._calls.log(self._call, method, args, kwargs)

    return awaited


def reads(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return an awaited version of a reading method: logging continues meanwhile."""

    @functools.wraps(method)
    async def awaited(self: Awaited, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._calls.read(self._call, method, args, kwargs)

    return awaited


def waits(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return an awaited version of a method that waits for the network."""

    @functools.wraps(method)
    async def awaited(self: Awaited, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._calls.wait(self._call, method, args, kwargs)

    return awaited


class AsyncBaseTracker(ProcessLocal, AddsContext, Awaited, Generic[T]):
    """Base class of the async trackers. Tasks, event loops and threads may share one.

    Each method is like the method of the same name of the tracker without ``Async``, with the same
    arguments, errors and result, but it does not block the event loop. When the await of a logging
    call ends, its event is durable. Events of calls awaited one after the other keep their order;
    those of `asyncio.gather` are stored in the order in which the calls began, many in one commit.
    `context` returns a plain ``with`` block.

    A cancelled await ends at once; the event is stored anyway, and a failure to do so is logged. A
    cancelled read, `flush` or `close` continues in its thread.

    The outbox is opened, in a thread, by ``async with`` or the first call. The tracker owns its
    threads: they end with `close` and are started again in a forked child. Interpreter shutdown
    waits only for events that are being logged.

    Args:
        config: Settings; by default those of the environment, read now.
        destination: Function that makes a `Destination`, as for trackers without ``Async``.

    Raises:
        ConfigurationError: if a setting is missing or invalid; from ``async with`` and the first
            call, if the configuration conflicts with another tracker's.
        OutboxError: from ``async with`` and the first call, if the outbox cannot be opened.
    """

    _kind: type[T]

    def __init__(
        self,
        config: APIConfig | None = None,
        *,
        destination: Callable[[], Destination] | None = None,
    ) -> None:
        settings = settings_of(config)
        check_destination(destination)
        calls = Calls()
        # A tracker that was never closed leaves no thread behind either.
        weakref.finalize(self, calls.stop).atexit = False
        make = partial(self._kind, settings, destination=destination)
        self._prepare(settings, calls, make, end=calls.stop)

    def _prepare(
        self,
        settings: APIConfig,
        calls: Calls,
        make: Callable[[], T],
        end: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._calls = calls
        self._make = make
        self._end = end
        self._tracker: T | None = None
        self._closed = False

    @classmethod
    def _part_of(cls, whole: AsyncBaseTracker[Any], make: Callable[[], T]) -> Self:
        """Return a tracker that shares the calls and threads of `whole`, which ends them."""
        part = cls.__new__(cls)
        part._prepare(whole._settings, whole._calls, make, end=lambda: None)
        return part

    @property
    def config(self) -> APIConfig:
        """The settings in use."""
        return self._settings if self._tracker is None else self._tracker.config

    def _target(self) -> T:
        """Return the tracker, opened on first use. Called in the threads of `_calls`."""
        with self._calls.lock:
            if self._closed or (self._tracker is not None and self._tracker._closed):
                raise TrackerClosedError(
                    f"this {type(self).__name__} was closed; make a new one to log again"
                )
            if self._tracker is None:
                tracker = self._make()
                tracker._client = self._calls.deferring(tracker._client)
                self._tracker = tracker
            return self._tracker

    track = logs(BaseTracker.track)
    flush = waits(BaseTracker.flush)
    health = reads(BaseTracker.health)

    async def close(self, timeout: float = 2.0) -> FlushResult:
        """Release the outbox once all earlier logging calls are done; see `Tracker.close`.

        Nothing is lost by closing early: pending events stay in the outbox until the next start.
        A second call does nothing.

        Args:
            timeout: Maximum number of seconds to upload; a failed attempt ends it. Default 2.

        Raises:
            ValidationError: if `timeout` is no number of seconds; nothing is closed then.
        """
        check_timeout("timeout", timeout)
        return await self._calls.wait(self._close, timeout)

    def _close(self, timeout: float) -> FlushResult:
        self._calls.drained().wait()
        with self._calls.lock:
            self._closed = True
            tracker = self._tracker
        try:
            return FlushResult() if tracker is None else tracker.close(timeout)
        finally:
            self._end()

    async def __aenter__(self) -> Self:
        await self._calls.wait(lambda: self._target().__enter__())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._tracker else "not opened yet"
        return f"<{type(self).__name__} {state}, outbox {self.config.outbox_path}>"

"""`Calls`: runs awaited calls in threads and returns their results to the event loop."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import functools
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from tracker import forks, log
from tracker.aio.lanes import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection
    from typing_extensions import ParamSpec

    from tracker.client import Recorder
    from tracker.config import APIConfig
    from tracker.erasure import ErasureResult
    from tracker.events import Event
    from tracker.health import Health
    from tracker.sessions import Sessions
    from tracker.sync.flush import FlushResult

    P = ParamSpec("P")
    R = TypeVar("R")

T = TypeVar("T")

_GROUP_LIMIT = 512
"""Maximum number of calls in one transaction, which limits how long the first one waits."""
_READERS = 4
_WAITERS = 32
_EXIT_SECONDS = 10.0
"""How long interpreter shutdown waits for calls whose await was cancelled."""


class Calls:
    """Runs calls in threads, in the context of the calling task. Thread-safe, for any event loop.

    Owns the threads, in lanes: one that runs logging calls in the order in which they are made, one
    that commits their events, up to 4 for reads, and up to 32 for calls of `flush` and `close`. All
    of them end with `stop`; a forked child starts its own. Also owns `lock`, which is held while a
    tracker is opened.

    A call continues when its ``await`` is cancelled. Its event is stored anyway, and a failure to
    do so is logged.
    """

    def __init__(self) -> None:
        self._store: Callable[[Sequence[Event]], None] | None = None
        self.restart_in_child()
        _living.add(self)
        _register()

    def restart_in_child(self) -> None:
        """Start with new lanes; in a forked child, the parent's calls are left to the parent."""
        self.lock = threading.RLock()
        self._logging = Lane("tracker-log", 1)
        self._committing = Lane("tracker-commit", 1)
        self._reading = Lane("tracker-read", _READERS)
        self._waiting = Lane("tracker-wait", _WAITERS)
        self._prepared: deque[_Call] = deque()

    def deferring(self, client: Recorder) -> Recorder:
        """Return a client that commits the events of calls made here together."""
        self._store = client.record_all
        return _Deferring(client, self._commit_prepared)

    async def log(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work` after earlier logging calls; return when its events are durable."""
        return await self._run(self._logging, partial(work, *args, **kwargs))

    async def read(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work`, which may be slow, in parallel to logging calls."""
        return await self._run(self._reading, partial(work, *args, **kwargs))

    async def wait(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `work`, which waits, in parallel to all other calls."""
        return await self._run(self._waiting, partial(work, *args, **kwargs))

    async def _run(self, lane: Lane, work: Callable[[], R]) -> R:
        call = _Call(partial(contextvars.copy_context().run, work))
        lane.submit(partial(self._prepare, call))
        result: R = await call.future
        return result

    def _prepare(self, call: _Call) -> None:
        """Run a call without committing its events."""
        _at_work.call = call
        try:
            call.result = call.work()
        except BaseException as error:  # noqa: BLE001 - passed to the task that made the call
            call.error = error
        finally:
            _at_work.call = None
        if call.events:
            self._prepared.append(call)
            self._committing.submit(self._commit)
        else:
            _settle([call])

    def _commit(self) -> None:
        """Commit the events of the calls prepared so far in one transaction."""
        calls: list[_Call] = []
        while self._prepared and len(calls) < _GROUP_LIMIT:
            calls.append(self._prepared.popleft())
        if not calls:
            return  # an earlier commit included them
        assert self._store is not None  # noqa: S101 - the events were recorded by a `_Deferring`
        try:
            self._store([event for call in calls for event in call.events])
        except Exception as error:  # noqa: BLE001 - passed to the tasks of the events
            for call in calls:
                call.error = call.error or error
        _settle(calls)

    def _commit_prepared(self) -> None:
        """Wait until the events of earlier logging calls are committed."""
        done = threading.Event()
        self._committing.submit(done.set)
        done.wait()

    def drained(self) -> threading.Event:
        """Return an event that is set when all earlier logging calls are committed."""
        done = threading.Event()
        self._logging.submit(lambda: self._committing.submit(done.set))
        return done

    def drain_at_exit(self) -> None:
        """Wait for logging calls whose tasks were cancelled at the end of their loop."""
        if self._logging.busy or self._committing.busy:
            self.drained().wait(_EXIT_SECONDS)

    def stop(self) -> None:
        """Let the threads end when all their calls are done."""
        for lane in (self._logging, self._committing, self._reading, self._waiting):
            lane.stop()


class _Call:
    """A call that is made in a task, runs in a lane, and is settled in the task's loop."""

    __slots__ = ("error", "events", "future", "loop", "result", "work")

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.events: list[Event] = []
        self.result: Any = None
        self.error: BaseException | None = None
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def tell(self) -> None:
        """Pass the result to the task. Runs in its loop."""
        if self.future.cancelled():
            self.tell_nobody()
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)

    def tell_nobody(self) -> None:
        """Log the error, if any, since the task is gone."""
        if self.error is not None:
            log.error("a call whose await was cancelled failed: %s", self.error)


def _settle(calls: list[_Call]) -> None:
    """Pass the results to the tasks, with one wake-up per loop."""
    for loop in {call.loop for call in calls}:
        own = [call for call in calls if call.loop is loop]
        try:
            loop.call_soon_threadsafe(_tell, own)
        except RuntimeError:  # the loop is closed, and its tasks with it
            for call in own:
                call.tell_nobody()


def _tell(calls: Iterable[_Call]) -> None:
    for call in calls:
        call.tell()


class _AtWork(threading.local):
    """The call that a lane's thread is running."""

    call: _Call | None = None


_at_work = _AtWork()


class _Deferring:
    """Wraps a client: events recorded by a call of `Calls` are kept for `_commit`.

    Events recorded outside of such a call, for instance by a decorator, are passed to the client.
    """

    def __init__(self, client: Recorder, commit_prepared: Callable[[], None]) -> None:
        self._client = client
        self._commit_prepared = commit_prepared

    @property
    def config(self) -> APIConfig:
        return self._client.config

    @property
    def sessions(self) -> Sessions:
        return self._client.sessions

    def record(self, event: Event) -> None:
        if _at_work.call is None:
            self._client.record(event)
        else:
            _at_work.call.events.append(event)

    def record_all(self, events: Sequence[Event]) -> None:
        self._client.record_all(events)

    def count_dropped(self) -> None:
        self._client.count_dropped()

    def record_new(
        self, session_id: str, choose: Callable[[list[tuple[str, str]]], list[Event]]
    ) -> None:
        self._commit_prepared()  # it is compared with what they logged, and comes after it
        self._client.record_new(session_id, choose)

    def read(self, query: Callable[[Connection], T]) -> T:
        return self._client.read(query)

    def erase(self, user_id: str, said: Mapping[str, Any]) -> ErasureResult:
        return self._client.erase(user_id, said)

    def flush(self, timeout: float | None) -> FlushResult:
        return self._client.flush(timeout)

    def health(self) -> Health:
        return self._client.health()

    def hurry(self) -> None:
        self._client.hurry()

    def note_otel_dropped(self, number: int) -> None:
        self._client.note_otel_dropped(number)

    def release(self, holder: object, timeout: float) -> FlushResult:
        return self._client.release(holder, timeout)


_living: WeakSet[Calls] = WeakSet()


def _drain_all() -> None:
    for calls in list(_living):
        calls.drain_at_exit()


def _restart_all() -> None:
    for calls in list(_living):
        calls.restart_in_child()


@functools.cache
def _register() -> None:
    """Have `_drain_all` run before outboxes are closed: the newest exit handler runs first."""
    atexit.register(_drain_all)


forks.in_child(forks.Stage.CALLS, _restart_all)

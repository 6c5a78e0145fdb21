"""Group commit: every write to the outbox, in one order; many callers' in one transaction."""

from __future__ import annotations

import threading
from collections import deque
from itertools import takewhile
from queue import SimpleQueue
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from tracker import log
from tracker.errors import TrackerClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tracker.events import Event
    from tracker.outbox.transaction import Transaction

T = TypeVar("T")

_GROUP_LIMIT = 512
"""Entries in one transaction: bounds how long the first of them waits for the last."""


class Backend(Protocol):
    """What commits: `WriteConnection`. One thread at a time uses it, the one that leads."""

    def append(self, event: Event) -> bool:
        """Commit `event` by itself; return False if it takes a transaction."""

    def transact(self, jobs: Sequence[Callable[[Transaction], None]]) -> None:
        """Run `jobs` in one transaction and commit it."""

    def settle(self) -> bool:
        """Put things right after an exception; return True if the last transaction landed."""

    def close(self) -> None:
        """Close what is open; a later write opens it again."""

    def explain(self, error: Exception) -> Exception:
        """Return what callers should see of an error."""

    def is_conflict(self, error: Exception) -> bool:
        """Return True if the rows of one job did not fit, which is not the others' fault."""


class _Entry(Generic[T]):
    """One caller's work in the queue, and how the leader tells it the outcome.

    `turn` gets a token when the work is done, or when its caller should see whether to lead.
    A `detached` entry has no caller waiting for it; `orphaned` hears of its failure instead.
    """

    __slots__ = ("detached", "done", "error", "orphaned", "result", "turn", "work")

    def __init__(
        self,
        work: Callable[[Transaction], T] | None,
        orphaned: Callable[[Exception], None] | None = None,
    ) -> None:
        self.work = work  # None: wants the writer for itself, between transactions
        self.orphaned = orphaned
        self.result: T | None = None
        self.error: Exception | None = None
        self.done = False
        self.detached = False
        self.turn: SimpleQueue[None] = SimpleQueue()


class GroupCommit:
    """Runs write jobs in order, many callers' in one commit.

    Whoever finds nobody leading leads: commits everything queued, its own work included, then
    wakes the first caller that still waits, which leads next unless a newcomer was faster. One
    fsync so serves all who came meanwhile, and a single thread pays nothing for it.

    Owns the queue and the leadership lock. The backend is used by the leading thread only.

    Two things can happen between any two lines here. Ctrl-C: what is queued stays in the queue
    until its outcome is settled, so `_recover` can always tell what is left to do. And a call that
    interrupts another one of the same thread (a signal handler, ``__del__``): it cannot wait for
    itself, so its work is queued, and the interrupted call returns when it is committed.

    Args:
        backend: Commits.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._closed = False
        self._begin_afresh()

    def _begin_afresh(self) -> None:
        self._queue: deque[_Entry[Any]] = deque()
        self._leadership = threading.RLock()
        self._waiting: set[int] = set()
        self._nested: dict[int, list[_Entry[Any]]] = {}
        self._committing: list[_Entry[Any]] | None = None
        self._at_work: _Entry[Any] | None = None

    def append(self, event: Event, orphaned: Callable[[Exception], None]) -> None:
        """Commit `event`; on return it is durable.

        Called from inside another call of this thread, it returns at once: the event is committed
        before that call returns, and `orphaned` is called if that fails.

        Raises:
            OutboxError: if it could not be stored.
        """
        if not (self._queue or self._is_leading()) and self._append_alone(event):
            if self._nested:
                self._await_nested()
            return
        self.run(lambda transaction: transaction.append(event), orphaned)

    def _append_alone(self, event: Event) -> bool:
        """Commit `event` by itself; False if somebody else is or was at work."""
        try:
            if not self._leadership.acquire(blocking=False):
                return False
            alone = self._backend.append(event)
            self._step_down()
        except BaseException as error:
            self._recover(_Entry(None))
            if isinstance(error, Exception):
                explained = self._backend.explain(error)
                if explained is not error:
                    raise explained from error
            raise
        return alone

    def run(
        self,
        work: Callable[[Transaction], T],
        orphaned: Callable[[Exception], None] | None = None,
    ) -> T:
        """Run `work` in a write transaction, commit, and return its result.

        Raises:
            OutboxError: if SQLite or the system failed; then nothing of `work` is stored.
            TrackerClosedError: if the writer is closed.
        """
        entry: _Entry[T] = _Entry(work, orphaned)
        me = get_ident()
        leading = self._is_leading()
        entry.detached = inside = leading or me in self._waiting
        try:
            if not inside:  # else the mark, or leadership, is the interrupted call's to give up
                self._waiting.add(me)
            self._queue.append(entry)
            if not leading and self._leadership.acquire(blocking=False):
                self._lead(entry)
            while not (entry.done or inside):
                entry.turn.get()
                if not entry.done and self._leadership.acquire(blocking=False):
                    self._lead(entry)
        except BaseException:
            self._recover(entry)
            raise
        finally:
            if not inside:
                self._waiting.discard(me)
        if not entry.done:
            self._nested.setdefault(me, []).append(entry)
        elif self._nested and not inside:
            self._await_nested()
        if entry.error is not None:
            raise entry.error
        return cast("T", entry.result)

    def _await_nested(self) -> None:
        """Wait for the commit of what interrupted this thread's call and could not wait itself."""
        for entry in self._nested.pop(get_ident(), ()):
            while not entry.done:
                if self._leadership.acquire(blocking=False):
                    self._lead(entry)
                else:
                    entry.turn.get()

    def pause(self) -> bool:
        """Wait for the writer, close its connection and keep it idle until `resume`.

        Returns False, having done nothing, when this thread is inside a write already.
        """
        me = get_ident()
        if me in self._waiting or self._is_leading():
            return False
        entry: _Entry[None] = _Entry(None)
        try:
            self._waiting.add(me)
            self._queue.append(entry)
            while not self._has_the_floor(entry):
                entry.turn.get()
            self._backend.close()
        except BaseException:
            self._recover(entry)
            raise
        finally:
            self._waiting.discard(me)
        return True

    def _has_the_floor(self, entry: _Entry[None]) -> bool:
        """Lead, commit what stands before a pause; return True if its turn has come."""
        if not self._leadership.acquire(blocking=False):
            return False
        while batch := self._next():
            self._commit(batch)
        if self._queue[0] is entry:
            entry.done = True
            self._queue.popleft()
            return True
        self._step_down()
        return False

    def resume(self) -> None:
        """End a `pause`; whoever came meanwhile goes on."""
        self._step_down()

    def alone(self, work: Callable[[], T]) -> T | None:
        """Run `work` while nobody writes.

        Returns None, having done nothing, when this thread is inside a write already.
        """
        inside = self._is_leading()
        try:
            return work() if self.pause() else None
        finally:
            if not inside and self._is_leading():
                self.resume()

    def close(self, then: Callable[[], None]) -> None:
        """Close for good, and call `then` while nobody writes; later writes are refused.

        They raise TrackerClosedError.
        """
        paused = self.pause()
        self._closed = True
        if paused:
            then()
            self.resume()

    def is_idle(self) -> bool:
        """Return True if no other thread is committing; for a forked child, which then leads."""
        return self._leadership.acquire(blocking=False)

    def restart_in_child(self) -> None:
        """Forget, in a forked child, the parent's threads and queue."""
        self._begin_afresh()

    def _is_leading(self) -> bool:
        owned: bool = self._leadership._is_owned()  # type: ignore[attr-defined]  # as Condition does
        return owned

    def _lead(self, entry: _Entry[Any]) -> None:
        """Commit what is queued until `entry` is done or a pause stands before it; step down."""
        while not entry.done and (batch := self._next()):
            self._commit(batch)
        self._step_down()

    def _step_down(self) -> None:
        """Give up leadership and wake whoever should lead next, if anybody waits."""
        while True:
            self._leadership.release()
            # Whoever queued before the release, and failed to lead, counts on us to look again.
            if not self._queue:
                return
            try:
                first = self._queue[0]
            except IndexError:
                return
            if not first.detached:
                first.turn.put(None)
                return
            if not self._leadership.acquire(blocking=False):
                return
            if batch := self._next():
                self._commit(batch)

    def _recover(self, entry: _Entry[Any]) -> None:
        """Put things right after Ctrl-C came at any point of this thread's call."""
        entry.detached = True
        entry.done = entry.done or entry.work is None  # nobody needs a pause that was given up
        if not self._is_leading() and not self._leadership.acquire(blocking=False):
            return  # somebody else leads, and will see that the entry is detached
        landed = self._backend.settle()
        if self._committing is not None and landed:
            self._settle(self._committing)
        self._committing = None
        if not entry.done and entry in self._queue:
            entry.done = True  # this call raises, so its work is withdrawn
        self._step_down()

    def _next(self) -> list[_Entry[Any]]:
        """Return what to commit together next: it stays in the queue until it is settled."""
        while self._queue and self._queue[0].done:
            self._queue.popleft()
        count = min(len(self._queue), _GROUP_LIMIT)
        batch = [self._queue[index] for index in range(count)]
        return list(takewhile(lambda entry: entry.work is not None, batch))

    def _commit(self, batch: list[_Entry[Any]]) -> None:
        """Run a transaction for `batch` and tell each of its callers the outcome."""
        while batch := [entry for entry in batch if not entry.done]:
            self._committing = batch
            try:
                self._transact(batch)
            except Exception as error:  # noqa: BLE001 - handed to the caller whose work it was
                self._committing = None
                failed = self._who_failed(batch, error)
                for entry in failed:
                    entry.error = self._backend.explain(error)
                self._settle(failed)
            else:
                self._settle(batch)
                self._committing = None

    def _who_failed(self, batch: list[_Entry[Any]], error: Exception) -> list[_Entry[Any]]:
        """Return whose fault it was: one's own is not the others'; a full disk is for all."""
        if self._at_work is not None:
            return [self._at_work]
        if self._backend.is_conflict(error):
            return batch[:1] if len(batch) == 1 else self._single_out(batch)
        return batch

    def _single_out(self, batch: list[_Entry[Any]]) -> list[_Entry[Any]]:
        """Commit each entry by itself, for the rows of one of them do not fit."""
        for entry in batch:
            self._commit([entry])
        return []

    def _transact(self, batch: list[_Entry[Any]]) -> None:
        self._at_work = None
        if self._closed:
            raise TrackerClosedError("the outbox was closed; make a new tracker to log again")
        self._backend.transact([self._job(entry) for entry in batch])

    def _job(self, entry: _Entry[Any]) -> Callable[[Transaction], None]:
        def job(transaction: Transaction) -> None:
            self._at_work = entry
            entry.result = entry.work(transaction)  # type: ignore[misc]  # _next leaves None
            self._at_work = None

        return job

    def _settle(self, batch: list[_Entry[Any]]) -> None:
        for entry in batch:
            entry.done = True
            entry.turn.put(None)
            if entry.detached and entry.error is not None:
                if entry.orphaned is not None:
                    entry.orphaned(entry.error)
                else:
                    log.error("a write from inside another call failed: %s", entry.error)
        self._next()  # takes what is done out of the queue

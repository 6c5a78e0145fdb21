"""Group commit: every write to the outbox, in one order, under one lock over all processes."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import deque
from itertools import takewhile
from queue import SimpleQueue
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sqlalchemy.exc import DBAPIError

from tracker import canonical, log
from tracker.errors import OutboxError, TrackerClosedError
from tracker.outbox import account, schema
from tracker.outbox import head as heads
from tracker.outbox.open_files import ReplacedError
from tracker.outbox.transaction import INSERT, Transaction, driver_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from tracker.events import Event
    from tracker.outbox.head import Head
    from tracker.outbox.locks import FileLock

T = TypeVar("T")


# Fails unless the outbox still ends at the second value given: an event without an id is refused.
_INSERT_AT_END = INSERT.replace("(?, ?,", f"(?, CASE WHEN {heads.LAST_GIVEN} = ? THEN ? END,")

_LAST_SEQ = 2**63 - 1 - 2**20
"""Where numbers end: SQLite's largest, less more than one transaction can give."""
_APART = 32
"""Appends that look where the outbox ends once another process was seen to write there."""
SURE_SECONDS = 0.001
"""How long the file at the path is taken for the same without a look, which costs 2 to 3 µs. Who
replaces it holds the write lock for longer, so nobody writes to one that was replaced."""
_GROUP_LIMIT = 512
"""Entries in one transaction: bounds how long the first of them waits for the last."""


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


class Writer:
    """Runs write jobs in order, many callers' in one commit.

    Whoever finds nobody leading leads: commits everything queued, its own work included, then
    wakes the first caller that still waits, which leads next unless a newcomer was faster. One
    fsync so serves all who came meanwhile, and a single thread pays nothing for it.

    Owns: the write connection and the leadership lock, both used by the leading thread only; and
    the cross-process write lock, which the leader holds from before BEGIN until after COMMIT.

    Two things can happen between any two lines here. Ctrl-C: what is queued stays in the queue
    until its outcome is settled, so `_recover` can always tell what is left to do. And a call that
    interrupts another one of the same thread (a signal handler, ``__del__``): it cannot wait for
    itself, so its work is queued, and the interrupted call returns when it is committed.

    Args:
        engine: Makes the write connection.
        lock: The cross-process write lock.
        path: The outbox.

    Attributes:
        file: Device and inode of the outbox; writes to any other file at the path are refused.
            None: do not look.
    """

    def __init__(
        self, engine: Engine, lock: FileLock, path: Path, chain_key: bytes | None = None
    ) -> None:
        self._engine = engine
        self._chain_key = chain_key
        self._lock = lock
        self._path = path
        self._path_text = str(path)
        self.file: tuple[int, int] | None = None
        self._sure_until = 0.0
        self._stale: tuple[Connection, sqlite3.Connection] | None = None
        self._connection: tuple[Connection, sqlite3.Connection] | None = None
        self._head: Head | None = None
        self._closed = False
        self._begin_afresh()

    def _begin_afresh(self) -> None:
        self._queue: deque[_Entry[Any]] = deque()
        self._leadership = threading.RLock()
        self._waiting: set[int] = set()
        self._nested: dict[int, list[_Entry[Any]]] = {}
        self._committing: list[_Entry[Any]] | None = None
        self._at_work: _Entry[Any] | None = None
        self._apart = 0
        self._anchored = 0

    def go_on_in(self, file: tuple[int, int]) -> None:
        """Write to the file of this device and inode, of which nothing is known yet."""
        self.file = file
        self._sure_until = 0.0
        self._head = None
        self._apart = self._anchored = 0

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
        """Commit `event` by a single statement; False if somebody else is or was at work.

        The usual case of one caller, who so needs no queue, no BEGIN and COMMIT (the write lock
        makes them unnecessary) and no look at the newest row: 1.2 times raw sqlite3 instead of 1.8.
        """
        try:
            if not self._leadership.acquire(blocking=False):
                return False
            alone = False
            if self._connection is not None and self._head is not None:
                self._lock.acquire()
                self._check_file()
                driver = self._connection[1]
                if self._apart:
                    self._apart -= 1
                    self._head = self._find_head(driver)
                alone = self._insert_at_end(driver, self._head, event)
                self._lock.release()
            self._step_down()
        except BaseException as error:
            self._recover(_Entry(None))
            if isinstance(error, (sqlite3.Error, OSError)):
                raise schema.explain(self._path, error) from error
            raise
        return alone

    def _insert_at_end(self, driver: sqlite3.Connection, head: Head, event: Event) -> bool:
        """Insert `event` if nobody else has written since the outbox ended at `head`; tell."""
        seq, chain = following = heads.after(head, event, self._chain_key)
        try:
            driver.execute(_INSERT_AT_END, (seq, head[0], *event, chain))
        except sqlite3.IntegrityError:
            self._apart = _APART
            return False
        self._head = following
        return True

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
            self._close_connection()
        except BaseException:
            self._recover(entry)
            raise
        finally:
            self._waiting.discard(me)
        return True

    def _has_the_floor(self, entry: _Entry[None]) -> bool:
        """Lead, commit what stands before a pause, and tell whether its turn has come."""
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

    def anchor(self) -> None:
        """Let the account know the newest seq, if events were appended since it was told.

        Raises:
            OutboxError: if it cannot be written.
        """
        if self._head is not None and self._head[0] > self._anchored:
            self.run(lambda transaction: transaction.connection)

    def alone(self, work: Callable[[Connection], T]) -> T | None:
        """Run `work` outside of any transaction, on a connection of its own, while nobody writes.

        Returns None, having done nothing, when this thread is inside a write already.

        Raises:
            ReplacedError: if the file at the path is another one.
        """
        inside = self._is_leading()
        try:
            if not self.pause():
                return None
            self._lock.acquire()
            self._check_file()
            with self._engine.connect() as connection:
                return work(connection)
        finally:
            if not inside and self._is_leading():
                self._lock.release()
                self.resume()

    def close(self) -> None:
        """Close connection and lock file for good: later writes raise TrackerClosedError."""
        paused = self.pause()
        self._closed = True
        if paused:
            self._lock.close()
            self.resume()

    def _close_connection(self) -> None:
        """Close the write connection, if open, under the write lock: closing may checkpoint.

        Where another process does not give that up, without: SQLite checkpoints then only if no
        other connection is left.
        """
        held, self._connection, self._head = self._connection, None, None
        if held is not None:
            try:
                self._lock.acquire()
            except OutboxError as error:
                log.info("the outbox is closed without its write lock: %s", error)
            try:
                held[0].close()
            finally:
                self._lock.release()

    def restart_in_child(self) -> None:
        """Forget, in a forked child, the parent's threads, queue and descriptors."""
        self._connection = self._stale = self._head = None
        self._lock.forget()
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
        if self._committing is not None:  # cut off near the COMMIT: did it land?
            _, driver = self._connect()
            if not driver.in_transaction:
                self._settle(self._committing)
            self._committing = None
        if not entry.done and entry in self._queue:
            entry.done = True  # this call raises, so its work is withdrawn
        self._abandon()
        self._lock.release()
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
            try:
                self._transact(batch)
            except Exception as error:  # noqa: BLE001 - handed to the caller whose work it was
                failed = self._who_failed(batch, error)
                storage = isinstance(error, (DBAPIError, sqlite3.Error, OSError))
                for entry in failed:
                    entry.error = schema.explain(self._path, error) if storage else error
                self._settle(failed)
            else:
                self._settle(batch)
                self._committing = None

    def _who_failed(self, batch: list[_Entry[Any]], error: Exception) -> list[_Entry[Any]]:
        """Tell whose fault it was: one's own work is not the others'; a full disk is for all."""
        if self._at_work is not None:
            return [self._at_work]
        if isinstance(error, sqlite3.IntegrityError) or isinstance(
            getattr(error, "orig", None), sqlite3.IntegrityError
        ):
            return batch[:1] if len(batch) == 1 else self._single_out(batch)
        return batch

    def _single_out(self, batch: list[_Entry[Any]]) -> list[_Entry[Any]]:
        """Commit each entry by itself, for the rows of one of them do not fit."""
        for entry in batch:
            self._commit([entry])
        return []

    def _transact(self, batch: list[_Entry[Any]]) -> None:
        self._at_work = None
        try:
            self._check_open()
            self._lock.acquire()
            self._check_file()
            connection, driver = self._connect()
            driver.execute("BEGIN IMMEDIATE")
            transaction = Transaction(connection, driver, self._find_head(driver), self._chain_key)
            for entry in batch:
                self._at_work = entry
                entry.result = entry.work(transaction)  # type: ignore[misc]  # _next leaves None
            self._at_work = None
            transaction.flush()
            if transaction.changed:
                account.note_stored(connection, transaction.head[0])
                self._anchored = transaction.head[0]
            self._committing = batch
            driver.execute("COMMIT")
            self._head = transaction.head
        except Exception:
            self._committing = None
            self._abandon()
            raise
        finally:
            self._lock.release()

    def _check_file(self) -> None:
        """See, under the lock, that the file at the path is ours still; if not, set it apart."""
        now = time.monotonic()
        if self.file is None or now < self._sure_until:
            return
        try:
            found = os.stat(self._path_text)  # noqa: PTH116 - half the time of Path.stat
            if (found.st_dev, found.st_ino) == self.file:
                self._sure_until = now + SURE_SECONDS
                return
        except FileNotFoundError:
            pass
        self._stale, self._connection = self._connection or self._stale, None
        self._head = None
        raise ReplacedError(f"the outbox {self._path} was deleted or replaced")

    def take_stale(self) -> Connection | None:
        """Hand over the connection to the file that is no longer at the path, if there is one."""
        held, self._stale = self._stale, None
        return None if held is None else held[0]

    def _find_head(self, driver: sqlite3.Connection) -> Head:
        """Return where the outbox ends; no seq that this process gave is given again.

        Where the newest rows were cut off by hand, that leaves a gap, which `verify` shows. Another
        file begins anew: with the connection, `_head` is forgotten.
        """
        seq, chain = heads.read(driver)
        if seq >= _LAST_SEQ:
            raise sqlite3.DatabaseError("somebody gave away its last seq: no event has a place")
        if not (isinstance(chain, str) and chain.isascii()):
            chain = canonical.GENESIS  # damaged: a break that `verify` names, not one for callers
        return max(seq, self._head[0] if self._head else 0), chain

    def _check_open(self) -> None:
        if self._closed:
            raise TrackerClosedError("the outbox was closed; make a new tracker to log again")

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

    def _connect(self) -> tuple[Connection, sqlite3.Connection]:
        """Return the connection and sqlite3's own under it.

        BEGIN and COMMIT go to the latter: SQLAlchemy would drop it on Ctrl-C, and whether the
        commit landed would not be known.
        """
        if self._connection is None:
            made = self._engine.connect()
            self._connection = made, driver_of(made)
        return self._connection

    def _abandon(self) -> None:
        """Roll back and close: after an I/O error the connection is not to be trusted."""
        held, self._connection, self._head = self._connection, None, None
        if held is not None:
            connection, driver = held
            driver.close()
            connection.invalidate()
            connection.close()

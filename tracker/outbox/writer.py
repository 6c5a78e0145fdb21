"""Group commit: every write to the outbox, in one order, under one lock over all processes."""

from __future__ import annotations

import logging
import threading
from collections import deque
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sqlalchemy.exc import DBAPIError

from tracker import canonical
from tracker.outbox import schema
from tracker.outbox.tables import events as events_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from tracker.events import Event
    from tracker.outbox.locks import FileLock

T = TypeVar("T")

_logger = logging.getLogger("tracker")

_COLUMNS = (
    "seq", "event_id", "type", "timestamp_ms", "agent_id", "session_id", "user_id", "data",
    "digest", "chain",
)  # fmt: skip

# Written once, in the order of Event's fields: Core's execute() would take twice as long a call.
_INSERT = (
    f"INSERT INTO events ({', '.join(events_table.c[name].name for name in _COLUMNS)}) "  # noqa: S608 - our own names
    f"VALUES ({', '.join('?' * len(_COLUMNS))})"
)

# The newest event may have been removed on purpose; then its place is kept in `gaps`.
_HEAD = """
SELECT seq, chain FROM (SELECT seq, chain FROM events ORDER BY seq DESC LIMIT 1)
UNION ALL
SELECT seq, chain FROM (SELECT last_seq AS seq, chain FROM gaps ORDER BY first_seq DESC LIMIT 1)
ORDER BY seq DESC LIMIT 1
"""

_GROUP_LIMIT = 512
"""Entries in one transaction: bounds how long the first of them waits for the last."""


class Transaction:
    """The open write transaction that a job runs in. Owned by the leading thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[tuple[Any, ...]] = []
        head = connection.exec_driver_sql(_HEAD).first()
        self._seq: int = 0 if head is None else head[0]
        self._chain: str = canonical.GENESIS if head is None else head[1]

    @property
    def connection(self) -> Connection:
        """The connection, with every event appended so far in its table."""
        self.flush()
        return self._connection

    def append(self, event: Event) -> int:
        """Give `event` the next place in the outbox and its link of the chain; return its seq."""
        self._seq += 1
        self._chain = canonical.chain(self._chain, event.digest)
        self._rows.append((self._seq, *event, self._chain))
        return self._seq

    def flush(self) -> None:
        """Insert the rows appended so far."""
        rows, self._rows = self._rows, []
        if len(rows) == 1:
            self._connection.exec_driver_sql(_INSERT, rows[0])
        elif rows:
            self._connection.exec_driver_sql(_INSERT, rows)


class _Entry(Generic[T]):
    """One caller's work in the queue, and how the leader tells it the outcome."""

    __slots__ = ("detached", "done", "error", "promoted", "result", "turn", "work")

    def __init__(self, work: Callable[[Transaction], T] | None) -> None:
        self.work = work  # None: wants the writer for itself, between transactions
        self.result: T | None = None
        self.error: Exception | None = None
        self.done = False
        self.promoted = False
        self.detached = False
        self.turn = threading.Lock()
        self.turn.acquire()


class Writer:
    """Runs write jobs in order, many callers' in one commit.

    Whoever finds nobody leading leads: commits everything queued, its own work included, then
    hands leadership to the first caller that still waits. One fsync so serves all who came
    meanwhile, and a single thread pays nothing for it.

    Owns: the write connection and the leadership lock, both used by the leading thread only; and
    the cross-process write lock, which the leader holds from before BEGIN until after COMMIT.

    A call that interrupts another one of the same thread (a signal handler, ``__del__``) cannot
    wait for itself: its work is queued and committed before the interrupted call returns.
    """

    def __init__(self, engine: Engine, lock: FileLock, path: Path) -> None:
        self._engine = engine
        self._lock = lock
        self._path = path
        self._connection: Connection | None = None
        self._begin_afresh()

    def _begin_afresh(self) -> None:
        self._queue: deque[_Entry[Any]] = deque()
        self._leadership = threading.Lock()
        self._inside: set[int] = set()
        self._landed = False

    def append(self, events: Sequence[Event]) -> None:
        """Commit `events` in their order; on return they are durable.

        Raises:
            OutboxError: if they could not be stored; then none of them is.
        """
        if len(events) == 1:
            event = events[0]
            self.run(lambda transaction: transaction.append(event))
        else:
            self.run(lambda transaction: [transaction.append(event) for event in events])

    def run(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a write transaction, commit, and return its result.

        Raises:
            OutboxError: if SQLite or the system failed; then nothing of `work` is stored.
        """
        entry: _Entry[T] = _Entry(work)
        me = get_ident()
        if me in self._inside:
            entry.detached = True
            self._queue.append(entry)
            return cast("T", None)
        self._inside.add(me)
        try:
            self._queue.append(entry)
            if self._leadership.acquire(blocking=False):
                self._lead(entry)
            self._await(entry)
        finally:
            self._inside.discard(me)
        if entry.error is not None:
            raise entry.error
        return cast("T", entry.result)

    def pause(self) -> bool:
        """Wait for the writer, close its connection and keep it idle until `resume`.

        Returns False, having done nothing, when this thread is inside a write already.
        """
        if get_ident() in self._inside:
            return False
        entry: _Entry[None] = _Entry(None)
        self._queue.append(entry)
        if self._leadership.acquire(blocking=False):
            self._pass_on()
        self._await(entry)
        self.close_connection()
        return True

    def resume(self) -> None:
        """End a `pause`; whoever came meanwhile goes on."""
        self._pass_on()

    def close_connection(self) -> None:
        """Close the write connection, if open, under the write lock: closing may checkpoint."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._lock.acquire()
            try:
                connection.close()
            finally:
                self._lock.release()

    def restart_in_child(self) -> None:
        """Forget, in a forked child, the parent's threads, queue and descriptors."""
        self._connection = None
        self._lock.forget()
        self._begin_afresh()

    def _lead(self, entry: _Entry[Any]) -> None:
        """Commit what is queued until `entry` is done or a pause stands before it."""
        try:
            while not entry.done and (batch := self._take()):
                self._commit(batch)
        except BaseException:  # Ctrl-C: this call will not return, so its work is withdrawn
            if entry in self._queue:
                self._queue.remove(entry)
                entry.done = True
            raise
        finally:
            self._pass_on()

    def _await(self, entry: _Entry[Any]) -> None:
        """Wait until `entry` is done, leading when it is this caller's turn to lead."""
        interrupt: BaseException | None = None
        while not entry.done:
            try:
                entry.turn.acquire()
                if entry.promoted:
                    entry.promoted = False
                    if entry.work is None:
                        self._queue.popleft()
                        entry.done = True
                    else:
                        self._lead(entry)
            except BaseException as error:  # noqa: BLE001 - raised again below
                # Ctrl-C: the work is in the queue, and leadership may be on its way to us.
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _pass_on(self) -> None:
        """Hand leadership to the first waiting caller, or give it up when nobody waits."""
        while True:
            while self._queue:
                if not self._queue[0].detached:
                    self._queue[0].promoted = True
                    self._queue[0].turn.release()
                    return
                self._commit(self._take())
            self._leadership.release()
            # Whoever queued before the release, too late for the loop above, counts on us.
            if not self._queue or not self._leadership.acquire(blocking=False):
                return

    def _take(self) -> list[_Entry[Any]]:
        batch: list[_Entry[Any]] = []
        while self._queue and len(batch) < _GROUP_LIMIT and self._queue[0].work is not None:
            batch.append(self._queue.popleft())
        return batch

    def _commit(self, batch: list[_Entry[Any]]) -> None:
        """Run one transaction for `batch` and tell each of its callers the outcome."""
        try:
            self._transact(batch)
        except Exception as error:  # noqa: BLE001 - handed to the caller whose work it was
            if len(batch) > 1:
                self._commit_singly(batch)
                return
            storage = isinstance(error, (DBAPIError, OSError))
            batch[0].error = schema.explain(self._path, error) if storage else error
        except BaseException:
            if not self._landed:
                self._queue.extendleft(reversed(batch))
                raise
            _settle(batch)
            raise
        _settle(batch)

    def _commit_singly(self, batch: list[_Entry[Any]]) -> None:
        """Give each entry a transaction of its own: one's fault must not be the others'."""
        rest = deque(batch)
        try:
            while rest:
                self._commit([rest.popleft()])
        except BaseException:
            self._queue.extendleft(reversed(rest))
            raise

    def _transact(self, batch: list[_Entry[Any]]) -> None:
        self._landed = committing = False
        try:
            self._lock.acquire()
            connection = self._connect()
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            transaction = Transaction(connection)
            for entry in batch:
                entry.result = entry.work(transaction)  # type: ignore[misc]  # _take leaves None
            transaction.flush()
            committing = True
            connection.exec_driver_sql("COMMIT")
            self._landed = True
        except BaseException as error:
            # Ctrl-C may come just after SQLite has committed; an error of SQLite's never does.
            interrupted = not isinstance(error, Exception)
            self._landed = interrupted and committing and not self._in_transaction()
            self._abandon()
            raise
        finally:
            self._lock.release()

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _in_transaction(self) -> bool:
        driver = self._connection and self._connection.connection.driver_connection
        return bool(driver and driver.in_transaction)

    def _abandon(self) -> None:
        """Roll back by closing: after an I/O error the connection is not to be trusted."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _settle(batch: list[_Entry[Any]]) -> None:
    for entry in batch:
        entry.done = True
        entry.turn.release()
        if entry.detached and entry.error is not None:
            _logger.error("an event logged from inside another call is lost: %s", entry.error)

"""`WriteConnection`: writes to the outbox, under its write lock between processes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tracker import canonical, log, time_ranges
from tracker.clock import monotonic
from tracker.errors import OutboxError
from tracker.outbox.files import held_files
from tracker.outbox.files.open_files import LostFilesError, ReplacedError, check_links
from tracker.outbox.schema import errors
from tracker.outbox.store import chain_tail
from tracker.outbox.store.group_commit import Attempt
from tracker.outbox.store.transaction import INSERT, Transaction, driver_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from tracker.events import Event
    from tracker.outbox.files.file_lock import FileLock
    from tracker.outbox.files.held_files import Hold
    from tracker.outbox.sqlite.engine import OutboxConnection
    from tracker.outbox.store.chain_tail import Head
    from tracker.outbox.store.group_commit import Entry
    from tracker.outbox.store.handover import Handover

T = TypeVar("T")


# Fails unless the outbox still ends at the second value: an event without an id violates NOT NULL.
_INSERT_AT_END = INSERT.replace("(?, ?,", f"(?, CASE WHEN {chain_tail.LAST_GIVEN} = ? THEN ? END,")

_STACK_FRAMES = 80
"""More stack frames than SQLAlchemy needs to open or close a connection."""
_LAST_SEQ = 2**63 - 1 - 2**20
"""The end of the numbers: SQLite's largest, minus more than one transaction can use."""
_READS_AFTER_CONFLICT = 32
"""Appends that read the tail of the chain again after another process was found to write."""
SURE_SECONDS = 0.001
"""How long the files at the paths are assumed to be unchanged; a check costs about 10 µs. A process
that replaces the outbox holds the write lock longer, so nobody writes to a file that is gone."""


class WriteConnection:
    """Writes to the outbox: one event by itself, or jobs in one transaction.

    Owns the connection, and holds the write lock between processes from before BEGIN until after
    COMMIT. Only one thread at a time uses it, the one that leads `GroupCommit`.

    Args:
        engine: Makes the connection.
        lock: The write lock between processes.
        path: The outbox.
        chain_key: Signs the chain; None if there is no key.
        handover: Where processes that wait offer their events; None if nobody may commit for
            another, as with durability ``"process"``, which flushes nothing.

    Attributes:
        file: Device and inode of the outbox; writes to any other file at the path are refused.
            None turns that check off.
    """

    def __init__(
        self, engine: Engine, lock: FileLock, path: Path, chain_key: bytes | None = None,
        handover: Handover | None = None,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._chain_key = chain_key
        self._lock = lock
        self._path = path
        self._path_text = str(path)
        self._handover = handover
        self.file: tuple[int, int] | None = None
        self._sure_until = 0.0
        self._stale: tuple[Connection, OutboxConnection] | None = None
        self._connection: tuple[Connection, OutboxConnection] | None = None
        self._head: Head | None = None
        self._held: Hold | None = None
        self._reads_left = 0
        self._anchored = 0
        self._retired = False

    def use_file(self, file: tuple[int, int]) -> None:
        """Write to the file with this device and inode, of which nothing is known yet."""
        self.file = file
        if self._handover is not None:
            self._handover.use_file(file)
        self._sure_until = 0.0
        self._head = None
        self._reads_left = self._anchored = 0

    def look_again(self) -> None:
        """Check the files before the next write, however short a while ago they were checked."""
        self._sure_until = 0.0

    # --- writing --------------------------------------------------------------------------------

    def append(self, event: Event) -> bool:
        """Commit `event` by a single statement; return False if that takes more, or a wait.

        This is the usual case, a single caller. It needs no BEGIN and COMMIT, because of the write
        lock, and no read of the newest row: 1.2 times the time of plain sqlite3 instead of 1.8.
        """
        held, head = self._connection, self._head
        if held is None or head is None:
            return False
        handover = self._handover
        if not self._acquire(None if handover is None else _never):
            return False  # the event can be offered if it has an entry in the queue
        if handover is not None and (others := handover.take()):
            self._append_all((event,), Attempt(), others)
            return True
        driver = held[1]
        if self._reads_left:
            self._reads_left -= 1
            head = self._find_head(driver)
        stored = self._insert_at_end(driver, head, event)
        if stored and monotonic() >= self._sure_until:  # `_after_commit`, inlined
            self._check_files(monotonic())
        self._lock.release()
        return stored

    def _insert_at_end(self, driver: sqlite3.Connection, head: Head, event: Event) -> bool:
        """Insert `event`; return False if another process wrote since `head` was read.

        False too if a row of `time_ranges` is due with it.
        """
        seq, chain = following = chain_tail.after(head, event, self._chain_key)
        if not seq % time_ranges.EVENTS:
            return False
        try:
            driver.execute(_INSERT_AT_END, (seq, head[0], *event, chain))
        except sqlite3.IntegrityError:
            self._reads_left = _READS_AFTER_CONFLICT
            return False
        self._head = following
        return True

    def append_all(self, events: Sequence[Event], attempt: Attempt) -> None:
        """Commit `events` in one transaction, all or none of them.

        If the lock is not free, they are offered to the process that has it; see `Handover`.
        """
        self._acquire(lambda: self._offer(attempt.entries))
        self._append_all(events, attempt, {})

    def _offer(self, entries: Sequence[Entry]) -> bool:
        """Offer the events of calls that have one: several must be stored all or none."""
        self._reads_left = _READS_AFTER_CONFLICT
        if self._handover is not None:
            for entry in entries:
                if not entry.unsure and len(entry.events) == 1:
                    entry.unsure = True  # before: an exception may come in between
                    self._handover.offer(entry.events[0])
        return True

    def _append_all(
        self, events: Sequence[Event], attempt: Attempt, others: dict[str, Event]
    ) -> None:
        """Commit `events` and what others have offered, under the lock, and release it."""
        unsure = {entry.events[0].event_id for entry in attempt.entries if entry.unsure}

        def append(transaction: Transaction) -> None:
            # What this connection sees is flushed; see `OutboxConnection.hold`.
            missing = [
                event
                for event in events
                if event.event_id not in unsure or not transaction.holds(event.event_id)
            ]
            for event in missing:
                transaction.append(event)
            if missing and self._handover is not None:
                others.update(self._handover.take())
                for event in events:
                    others.pop(event.event_id, None)
                transaction.append_all_missing(others.values())

        self._transact(append, attempt)

    def transact(self, job: Callable[[Transaction], object], attempt: Attempt) -> None:
        """Run `job` in a transaction and commit it; `Backend` describes `attempt`.

        After an exception this connection may be in any state, and must be retired.
        """
        self._acquire()
        self._transact(job, attempt)

    def _transact(self, job: Callable[[Transaction], object], attempt: Attempt) -> None:
        """Do so under the lock, and release it."""
        connection, driver = self._connect()
        driver.execute("BEGIN IMMEDIATE")
        transaction = Transaction(connection, driver, self._find_head(driver), self._chain_key)
        attempt.result = job(transaction)
        transaction.flush()
        if transaction.changed:
            transaction.anchor()
            self._anchored = transaction.head[0]
        # A single step for the interpreter: no exception can be raised between the two calls.
        attempt.landed.extend(map(driver.execute, ("COMMIT",)))
        self._head = transaction.head
        self._after_commit()
        self._lock.release()

    def retire(self, *, suspended: bool, sound: bool = False) -> WriteConnection:
        """Roll back what is open, release the lock, and return the connection to go on with.

        From then on, a call that still has this one can write nothing with it. A connection that a
        `suspended` call uses is not closed but made to refuse every statement that writes: it may
        be inside SQLite at this moment, if the interpreter is collecting garbage. One that is
        `sound` is handed on: opening another takes a deep stack, for which a runaway recursion has
        left no room.
        """
        if self._connection is not None:
            _need_stack()
        self._retired = True
        held, reused = self._connection, False
        if held is not None:
            with contextlib.suppress(sqlite3.Error):  # already closed, or the disk fails
                held[1].rollback()
                reused = sound and not suspended
                if suspended:
                    held[1].set_authorizer(_refuse_writes)
        self._lock.retire()
        fresh = self._successor(self._handover)
        if reused:
            fresh._connection, fresh._held = held, self._held
        elif held is not None and not suspended:
            with contextlib.suppress(sqlite3.Error, SQLAlchemyError):  # already closed
                self._end(*held)
        self._connection = None
        fresh.file, fresh._stale = self.file, self._stale
        return fresh

    def _acquire(self, before_waiting: Callable[[], bool] | None = None) -> bool:
        """Take the write lock and check that the file about to be written is the outbox.

        Args:
            before_waiting: As in `FileLock.acquire`.

        Raises:
            OutboxError: if it is not; nothing was written.
        """
        held = self._held
        now = monotonic()
        sure = now < self._sure_until
        if not sure or (held is not None and not held.seems_open()):
            self._lock.drop_lost()
            sure = False
        try:
            if not self._lock.acquire(before_waiting):
                return False
        except OutboxError:
            if self._handover is not None:
                self._handover.take()  # what is still offered is not stored later on
            if self.file is not None:
                self._find_links()  # raises if the file is gone as well, with its folder say
            raise
        if not sure:
            self._check_files(now)
        if held_files.LOCKS_GO and held is not None:
            held.files.lock()
        return True

    def _check_files(self, now: float) -> None:
        """Check, under the write lock, that our files are at the paths; if not, set ours aside.

        Raises:
            ReplacedError: if another file, or none, is at the outbox's path; a LostFilesError if
                that is so for its log or index.
            OutboxError: if the file has a second name.
        """
        while self._lock.is_replaced():
            if self.file is not None:
                self._find_links()  # raises if the folder is gone, where no lock can be created
            log.warning(
                "the lock file %s was deleted or replaced; it is created again", self._lock.path
            )
            self._lock.close()
            self._lock.acquire()
        held = self._held
        if held is not None and not held.is_open():
            raise LostFilesError(
                f"other code in this process closed descriptors of the outbox {self._path}"
            )
        if self.file is not None:
            links = self._find_links()
            if held is not None and not held.are_at_path():
                check_links(self._path, links)
                self._set_aside()
                raise LostFilesError(f"the log of the outbox {self._path} was deleted or replaced")
            check_links(self._path, links)
        self._sure_until = now + SURE_SECONDS

    def _find_links(self) -> int:
        """Return how many names the outbox's file, which must be at its path, has.

        Raises:
            ReplacedError: if another file, or none, is at the path.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(self._path_text)  # noqa: PTH116 - half the time of Path.stat
            if (found.st_dev, found.st_ino) == self.file:
                return found.st_nlink
        self._set_aside()
        raise ReplacedError(f"the outbox {self._path} was deleted or replaced")

    def _set_aside(self) -> None:
        self._stale, self._connection = self._connection or self._stale, None
        self._held = self._head = None

    def _after_commit(self) -> None:
        """Check the files again after a slow commit, before callers learn of it.

        Raises:
            OutboxError: as `_check_files`. The commit went to the files that were set aside.
        """
        now = monotonic()
        if now >= self._sure_until:
            self._check_files(now)

    # --- the connection -------------------------------------------------------------------------

    @property
    def lock(self) -> FileLock:
        """The write lock between processes."""
        return self._lock

    @property
    def unanchored(self) -> bool:
        """Whether events were appended that the account does not cover yet."""
        return self._head is not None and self._head[0] > self._anchored

    def alone(self, work: Callable[[Connection], T]) -> T:
        """Run `work` outside of any transaction, on a separate connection, while writers pause.

        Raises:
            ReplacedError: if another file is at the path.
        """
        try:
            self._acquire()
            held_files.check(self._path)
            with self._engine.connect() as connection:
                return work(connection)
        finally:
            self._lock.release()

    @property
    def stale(self) -> Connection | None:
        """The connection to files that are no longer at their paths, if there is one."""
        return None if self._stale is None else self._stale[0]

    def take_stale(self) -> Connection | None:
        """Hand over the connection to the file that is no longer at the path, if there is one."""
        held, self._stale = self._stale, None
        return None if held is None else held[0]

    def close(self) -> None:
        """Close the connection, if open, under the write lock, because closing may checkpoint.

        If another process does not release that lock, close without it: SQLite then checkpoints
        only if no other connection is left. A later write opens the connection again.
        """
        if self._connection is None:
            return
        self._lock.drop_lost()
        try:
            self._lock.acquire()
        except OutboxError as error:
            log.info("the outbox is closed without its write lock: %s", error)
        try:
            held, self._connection, self._head = self._connection, None, None
            self._end(*held)
        finally:
            self._lock.release()

    def _end(self, connection: Connection, driver: OutboxConnection) -> None:
        """Close a connection, or set it aside if its log is gone: it may be the last one to it."""
        held, self._held = self._held, None
        if held is not None and held.is_open() and not held.files.are_surely_at_path():
            driver.rollback()
            if self._stale is None:
                self._stale = connection, driver
                return
        driver.close()
        connection.invalidate()
        connection.close()

    def close_lock(self) -> None:
        """Close the lock file and the handover for good."""
        self._lock.close()
        if self._handover is not None:
            self._handover.close()

    def inherited(self) -> list[Connection]:
        """Hand over, in a forked child, the connections that the parent has open."""
        held = [each[0] for each in (self._connection, self._stale) if each is not None]
        self._connection = self._stale = None
        return held

    def restart_in_child(self) -> WriteConnection:
        """Return the connection for a forked child, which must not use the parent's."""
        self._lock.forget()
        handover = None if self._handover is None else self._handover.for_child()
        fresh = self._successor(handover)
        if self.file is not None:
            fresh.use_file(self.file)
        return fresh

    def _successor(self, handover: Handover | None) -> WriteConnection:
        lock = self._lock.successor()
        return WriteConnection(self._engine, lock, self._path, self._chain_key, handover)

    def explain(self, error: Exception) -> Exception:
        """Return the error that callers should see: our own one if `error` is about storage."""
        # Errors of the system have a number; a TimeoutError of a handler is not about storage.
        of_system = isinstance(error, OSError) and error.errno is not None
        if of_system or isinstance(error, (DBAPIError, sqlite3.Error)):
            return errors.explain(self._path, error)
        return error

    @staticmethod
    def is_conflict(error: Exception) -> bool:
        """Return True if rows of one job violated a constraint, which concerns that job alone."""
        return isinstance(error, sqlite3.IntegrityError) or isinstance(
            getattr(error, "orig", None), sqlite3.IntegrityError
        )

    def _find_head(self, driver: sqlite3.Connection) -> Head:
        """Return the tail of the chain; no seq that this process assigned is assigned again.

        If the newest rows were removed by hand, that leaves a gap, which `verify` reports. Another
        file starts from its own tail: `_head` is dropped together with the connection.
        """
        seq, chain = chain_tail.read(driver)
        if seq >= _LAST_SEQ:
            raise sqlite3.DatabaseError("the last seq is in use: there is none for another event")
        if not (isinstance(chain, str) and chain.isascii()):
            chain = canonical.GENESIS  # damaged: `verify` reports the break, callers see no error
        return max(seq, self._head[0] if self._head else 0), chain

    def _connect(self) -> tuple[Connection, OutboxConnection]:
        """Return the connection and sqlite3's own below it.

        BEGIN and COMMIT go to the latter: SQLAlchemy would drop it on Ctrl-C, and it would not be
        known whether the commit succeeded.
        """
        held = self._connection
        if held is None:
            _need_stack()
            held_files.check(self._path)
            made = self._engine.connect()
            driver = driver_of(made)
            if self.file is not None:
                try:
                    driver.hold(self._path, find=True)
                except BaseException:
                    made.invalidate()
                    made.close()
                    raise
            self._held = driver.held
            self._connection = made, driver
            if self._retired:
                self.retire(suspended=False)
                raise OutboxError("another call of this thread took over from this one")
            return made, driver
        return held


def _need_stack(frames: int = _STACK_FRAMES) -> None:
    """Raise RecursionError here, if it is about to happen, rather than inside SQLAlchemy.

    A connection that SQLAlchemy cannot finish opening or closing becomes garbage, and its finalizer
    makes another one, which cannot be finished either, without end.
    """
    if frames:
        _need_stack(frames - 1)


def _never() -> bool:
    """Do not wait for the write lock."""
    return False


_READING = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


def _refuse_writes(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY

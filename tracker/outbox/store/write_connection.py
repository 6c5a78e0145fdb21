"""`WriteConnection`: what writes to the outbox, under its cross-process write lock."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tracker import canonical, log
from tracker.clock import monotonic
from tracker.errors import OutboxError
from tracker.outbox.files import held_files
from tracker.outbox.files.open_files import LostFilesError, ReplacedError, check_links
from tracker.outbox.schema import errors
from tracker.outbox.store import chain_tail, ledger
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
    from tracker.outbox.store.group_commit import Attempt

T = TypeVar("T")


# Fails unless the outbox still ends at the second value given: an event without an id is refused.
_INSERT_AT_END = INSERT.replace("(?, ?,", f"(?, CASE WHEN {chain_tail.LAST_GIVEN} = ? THEN ? END,")

_STACK_FRAMES = 80
"""More than SQLAlchemy takes to open a connection or to close one."""
_LAST_SEQ = 2**63 - 1 - 2**20
"""Where numbers end: SQLite's largest, less more than one transaction can give."""
_APART = 32
"""Appends that look where the outbox ends once another process was seen to write there."""
SURE_SECONDS = 0.001
"""How long the files at the paths are taken for the same without a look, which costs some 10 µs.
Who replaces the outbox holds the write lock for longer, so nobody writes to one that is gone."""


class WriteConnection:
    """Writes to the outbox: one event by itself, or jobs in one transaction.

    Owns the connection, and takes the cross-process write lock from before BEGIN until after
    COMMIT. One thread at a time uses it, the one that leads `GroupCommit`.

    Args:
        engine: Makes the connection.
        lock: The cross-process write lock.
        path: The outbox.
        chain_key: Signs the chain, if there is one.

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
        self._stale: tuple[Connection, OutboxConnection] | None = None
        self._connection: tuple[Connection, OutboxConnection] | None = None
        self._head: Head | None = None
        self._held: Hold | None = None
        self._apart = 0
        self._anchored = 0
        self._retired = False

    def go_on_in(self, file: tuple[int, int]) -> None:
        """Write to the file of this device and inode, of which nothing is known yet."""
        self.file = file
        self._sure_until = 0.0
        self._head = None
        self._apart = self._anchored = 0

    # --- writing --------------------------------------------------------------------------------

    def append(self, event: Event) -> bool:
        """Commit `event` by a single statement; return False if it takes a transaction.

        The usual case of one caller, who so needs no BEGIN and COMMIT (the write lock makes them
        unnecessary) and no look at the newest row: 1.2 times raw sqlite3 instead of 1.8.
        """
        held, head = self._connection, self._head
        if held is None or head is None:
            return False
        self._acquire()
        driver = held[1]
        if self._apart:
            self._apart -= 1
            head = self._find_head(driver)
        stored = self._insert_at_end(driver, head, event)
        if stored and monotonic() >= self._sure_until:  # `_after_commit`, without its call
            self._check_files(monotonic())
        self._lock.release()
        return stored

    def _insert_at_end(self, driver: sqlite3.Connection, head: Head, event: Event) -> bool:
        """Insert `event`; return False if somebody wrote since the outbox ended at `head`."""
        seq, chain = following = chain_tail.after(head, event, self._chain_key)
        try:
            driver.execute(_INSERT_AT_END, (seq, head[0], *event, chain))
        except sqlite3.IntegrityError:
            self._apart = _APART
            return False
        self._head = following
        return True

    def append_all(self, events: Sequence[Event], attempt: Attempt) -> None:
        """Commit `events` in one transaction, all or none of them."""

        def append(transaction: Transaction) -> None:
            for event in events:
                transaction.append(event)

        self.transact(append, attempt)

    def transact(self, job: Callable[[Transaction], object], attempt: Attempt) -> None:
        """Run `job` in a transaction and commit it; see `Backend` about `attempt`.

        After an exception it is in any state, and to be retired.
        """
        self._acquire()
        connection, driver = self._connect()
        driver.execute("BEGIN IMMEDIATE")
        transaction = Transaction(connection, driver, self._find_head(driver), self._chain_key)
        attempt.result = job(transaction)
        transaction.flush()
        if transaction.changed:
            ledger.note_stored(connection, transaction.head[0])
            self._anchored = transaction.head[0]
        # In one step for the interpreter: nothing can be raised between the two.
        attempt.landed.extend(map(driver.execute, ("COMMIT",)))
        self._head = transaction.head
        self._after_commit()
        self._lock.release()

    def retire(self, *, suspended: bool, sound: bool = False) -> WriteConnection:
        """Roll back what is open, free the lock, and return the connection to go on with.

        From then on, whoever still has this one can write nothing with it. A connection that a
        `suspended` call uses is not closed but made to refuse every statement that writes: it may
        be inside SQLite at this moment, where the interpreter collects garbage. One that is `sound`
        is handed on: to open another takes a deep stack, which a runaway recursion has not left.
        """
        if self._connection is not None:
            _need_stack()
        self._retired = True
        held, reused = self._connection, False
        if held is not None:
            with contextlib.suppress(sqlite3.Error):  # closed before, or the disk fails
                held[1].rollback()
                reused = sound and not suspended
                if suspended:
                    held[1].set_authorizer(_refuse_writes)
        self._lock.retire()
        fresh = WriteConnection(self._engine, self._lock.successor(), self._path, self._chain_key)
        if reused:
            fresh._connection, fresh._held = held, self._held
        elif held is not None and not suspended:
            with contextlib.suppress(sqlite3.Error, SQLAlchemyError):  # closed before
                self._end(*held)
        self._connection = None
        fresh.file, fresh._stale = self.file, self._stale
        return fresh

    def _acquire(self) -> None:
        """Take the write lock and see that what is about to be written to is the outbox.

        Raises:
            OutboxError: if not; nothing was written.
        """
        held = self._held
        now = monotonic()
        sure = now < self._sure_until
        if not sure or (held is not None and not held.seems_open()):
            self._lock.drop_lost()
            sure = False
        self._lock.acquire()
        if not sure:
            self._check_files(now)
        if held_files.LOCKS_GO and held is not None:
            held.files.lock()

    def _check_files(self, now: float) -> None:
        """See, under the write lock, that the files at the paths are ours; if not, set ours apart.

        Raises:
            ReplacedError: if the outbox's file is another one, or there is none; a LostFilesError
                if its log or index is.
            OutboxError: if the file has a second name.
        """
        while self._lock.is_replaced():
            log.warning(
                "the lock file %s was deleted or replaced; it is made again", self._lock.path
            )
            self._lock.close()
            self._lock.acquire()
        held = self._held
        if held is not None and not held.is_open():
            raise LostFilesError(
                f"descriptors of the outbox {self._path} were closed by another part of the process"
            )
        if self.file is not None:
            links = self._find_links()
            if held is not None and not held.are_at_path():
                check_links(self._path, links)
                self._set_apart()
                raise LostFilesError(f"the log of the outbox {self._path} was deleted or replaced")
            check_links(self._path, links)
        self._sure_until = now + SURE_SECONDS

    def _find_links(self) -> int:
        """Return how many names the outbox's file has, which is at its path.

        Raises:
            ReplacedError: if another one is, or none.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(self._path_text)  # noqa: PTH116 - half the time of Path.stat
            if (found.st_dev, found.st_ino) == self.file:
                return found.st_nlink
        self._set_apart()
        raise ReplacedError(f"the outbox {self._path} was deleted or replaced")

    def _set_apart(self) -> None:
        self._stale, self._connection = self._connection or self._stale, None
        self._held = self._head = None

    def _after_commit(self) -> None:
        """See once more, before callers are told of a commit that took long.

        Raises:
            OutboxError: as `_check_files`. What was committed is in the files set apart.
        """
        now = monotonic()
        if now >= self._sure_until:
            self._check_files(now)

    # --- the connection -------------------------------------------------------------------------

    @property
    def lock(self) -> FileLock:
        """The cross-process write lock."""
        return self._lock

    @property
    def unanchored(self) -> bool:
        """Whether events were appended of which the account does not know."""
        return self._head is not None and self._head[0] > self._anchored

    def alone(self, work: Callable[[Connection], T]) -> T:
        """Run `work` outside of any transaction, on a connection of its own; while writers pause.

        Raises:
            ReplacedError: if the file at the path is another one.
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
        """Close the connection, if open, under the write lock: closing may checkpoint.

        Where another process does not give that up, without: SQLite checkpoints then only if no
        other connection is left. A later write opens it again.
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
        """Close a connection, or set it apart if its log is not at the path: it may be the last."""
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
        """Close the lock file, for good."""
        self._lock.close()

    def inherited(self) -> list[Connection]:
        """Hand over, in a forked child, the connections that the parent has open."""
        held = [each[0] for each in (self._connection, self._stale) if each is not None]
        self._connection = self._stale = None
        return held

    def restart_in_child(self) -> WriteConnection:
        """Return what a forked child goes on with; the parent's connections are not its own."""
        self._lock.forget()
        fresh = WriteConnection(self._engine, self._lock.successor(), self._path, self._chain_key)
        fresh.file = self.file
        return fresh

    def explain(self, error: Exception) -> Exception:
        """Return what callers should see of an error: storage's as one of our own."""
        # The system's own have a number; a handler's TimeoutError is not storage's trouble.
        of_system = isinstance(error, OSError) and error.errno is not None
        if of_system or isinstance(error, (DBAPIError, sqlite3.Error)):
            return errors.explain(self._path, error)
        return error

    @staticmethod
    def is_conflict(error: Exception) -> bool:
        """Return True if the rows of one job did not fit, which is not the others' fault."""
        return isinstance(error, sqlite3.IntegrityError) or isinstance(
            getattr(error, "orig", None), sqlite3.IntegrityError
        )

    def _find_head(self, driver: sqlite3.Connection) -> Head:
        """Return where the outbox ends; no seq that this process gave is given again.

        Where the newest rows were cut off by hand, that leaves a gap, which `verify` shows. Another
        file begins anew: with the connection, `_head` is forgotten.
        """
        seq, chain = chain_tail.read(driver)
        if seq >= _LAST_SEQ:
            raise sqlite3.DatabaseError("somebody gave away its last seq: no event has a place")
        if not (isinstance(chain, str) and chain.isascii()):
            chain = canonical.GENESIS  # damaged: a break that `verify` names, not one for callers
        return max(seq, self._head[0] if self._head else 0), chain

    def _connect(self) -> tuple[Connection, OutboxConnection]:
        """Return the connection and sqlite3's own under it.

        BEGIN and COMMIT go to the latter: SQLAlchemy would drop it on Ctrl-C, and whether the
        commit landed would not be known.
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
    """Raise RecursionError here, if that is to come, rather than inside SQLAlchemy.

    A connection that it cannot finish opening or closing there is garbage, and its finalizer makes
    another one, which cannot be finished either, without end.
    """
    if frames:
        _need_stack(frames - 1)


_READING = frozenset(
    (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
)


def _refuse_writes(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY

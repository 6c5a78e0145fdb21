"""`Connections`: everything that one process has open of one outbox, for writing and reading."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from tracker.clock import monotonic
from tracker.errors import OutboxDamagedError, OutboxError, TrackerClosedError
from tracker.outbox.files import held_files, paths, swap
from tracker.outbox.files.file_lock import FileLock
from tracker.outbox.files.open_files import LostFilesError, ReplacedError
from tracker.outbox.files.pipe import SUFFICES
from tracker.outbox.schema import errors, guard
from tracker.outbox.sqlite.engine import make_engine
from tracker.outbox.store.group_commit import GroupCommit
from tracker.outbox.store.handover import Handover
from tracker.outbox.store.snapshots import Snapshots
from tracker.outbox.store.transaction import driver_of
from tracker.outbox.store.write_connection import WriteConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from sqlalchemy import Connection, Engine

T = TypeVar("T")

FileId: TypeAlias = "tuple[int, int] | None"
"""Device and inode."""

SNAPSHOT_SECONDS = 5.0
"""How long a fork or a close waits for long reads to end."""
_SLOW_SECONDS = 0.9
"""How long a call may wait to be written before `writing_trouble` reports it."""

_in_use_at_fork: list[Connection] = []
"""The parent's connections, which a child can neither use nor close."""


class Connections:
    """The connections and locks of one process on one outbox, whichever file is at the path.

    Owns the write side (`GroupCommit` and its `WriteConnection`, with the lock file
    ``<outbox>.lock``), one read connection with its lock, the count of long reads, and the upload
    lock ``<outbox>.sync-lock``, which the sync worker takes. A thread that takes more than one
    lock takes leadership of the writer before the reader's lock.

    Args:
        path: The outbox.
        durability: ``"full"`` or ``"process"``.
        chain_key: Signs the chain; None if there is no key.
        lock_mark: Content to write into an empty lock file.

    Attributes:
        path: The path of the outbox.
        file: Device and inode of the open file; None if none is open.
        writer: Commits all writes.
        upload_lock: The lock that the uploading process holds.
        damage: An error that a reader met and that only another file can end; None if there is
            none.
        generation: How many files were opened so far; inodes are reused.
        next_check_at: When to check the files next, on the monotonic clock.
    """

    def __init__(
        self, path: Path, durability: str, chain_key: bytes | None, lock_mark: bytes
    ) -> None:
        self.path = path
        self.file: FileId = None
        self.damage: OutboxDamagedError | None = None
        self.next_check_at = 0.0
        self.generation = 0
        self.upload_lock = FileLock(paths.upload_lock(path), like=path)
        self._durability = durability
        lock = FileLock(paths.write_lock(path), lock_mark, like=path)
        self.writer: GroupCommit[WriteConnection] = GroupCommit(
            WriteConnection(
                self.engine(writer=True),
                lock,
                path,
                chain_key,
                Handover(path, chain_key) if durability == "full" and SUFFICES else None,
            )
        )
        self.readers = self.engine(writer=False)
        self._closed = False
        self._begin_reading()

    def _begin_reading(self) -> None:
        self._read_lock = threading.RLock()
        self._read_connection: Connection | None = None
        self._snapshots = Snapshots()

    def engine(self, *, writer: bool) -> Engine:
        """Return an engine that connects to the file at the path."""
        return make_engine(self.path, self._durability, writer=writer)

    @property
    def write_connection(self) -> WriteConnection:
        """The one in use; it is replaced after a call was interrupted."""
        return self.writer.backend

    @property
    def lock(self) -> FileLock:
        """The write lock between processes."""
        return self.write_connection.lock

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def check_open(self) -> None:
        """Raise TrackerClosedError if `close` was called."""
        if self._closed:
            raise TrackerClosedError("the outbox was closed; make a new tracker to log again")

    # --- reading --------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend the read connection to this thread. Other readers wait; writers do not.

        Raises:
            OutboxError: if SQLite or the operating system reports an error.
            TrackerClosedError: if the outbox is closed.
        """
        with self._read_lock:
            self.check_open()
            try:
                if self._read_connection is None:
                    self._read_connection = self._connect_reader(find=True)
                self._check_descriptors(self._read_connection)
                yield self._read_connection
            except BaseException as error:
                # Any exception, Ctrl-C included, may have left the connection unusable.
                self.close_reader()
                if isinstance(error, (SQLAlchemyError, sqlite3.Error, OSError)):
                    raise self._explain(error) from error
                if isinstance(error, (TypeError, ValueError)):
                    self._raise_if_values_damaged(error)
                raise

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Lend a separate read connection, for long reads. A fork waits for its end.

        Raises:
            OutboxError: if SQLite or the operating system reports an error.
            TrackerClosedError: if the outbox is closed.
        """
        self.check_open()
        self._snapshots.begin()
        try:
            with self._connect_reader() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise self._explain(error) from error
        except (TypeError, ValueError) as error:
            self._raise_if_values_damaged(error)
            raise
        finally:
            self._snapshots.end()

    def _connect_reader(self, *, find: bool = False) -> Connection:
        """Connect; then check that file and log, which SQLite opens by name, were both ours.

        Args:
            find: Whether to find out the connection's descriptors, because it is kept open.

        Raises:
            OutboxDamagedError: if another file is at the path.
        """
        try:
            held_files.check(self.path)
        except LostFilesError as error:
            raise self._explain(error) from error
        # Before, too: another file with this one's log beside it would be damaged by closing it.
        self._check_file()
        connection = self.readers.connect()
        try:
            driver = driver_of(connection)
            try:
                driver.hold(self.path, find=find)
            except ReplacedError as error:
                raise self._explain(error) from error
            self._check_file()
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_file(self) -> None:
        if swap.file_identity(self.path) != self.file:
            gone = ReplacedError(f"the outbox {self.path} was deleted or replaced")
            raise self._explain(gone)

    def _check_descriptors(self, connection: Connection) -> None:
        """Check that no other code in this process has closed descriptors of a connection.

        Raises:
            LostFilesError: if it has.
        """
        held = driver_of(connection).held
        if held is not None and not held.is_open():
            held_files.check(self.path)

    def _explain(self, error: Exception) -> OutboxError:
        """Return our own error for `error`; if it means damage, remember it."""
        explained = errors.explain(self.path, error)
        if isinstance(explained, OutboxDamagedError):
            self.damage = explained
        self.next_check_at = 0.0
        return explained

    def _raise_if_values_damaged(self, error: Exception) -> None:
        """Check whether values of wrong types in damaged bookkeeping have caused `error`.

        Raises:
            OutboxDamagedError: if they have.
        """
        with contextlib.suppress(SQLAlchemyError), self._connect_reader() as connection:
            try:
                guard.check_values(connection)
            except OutboxDamagedError as damage:
                raise self._explain(damage) from error

    @property
    def reader(self) -> Connection | None:
        """The read connection, if one is open. Only for work that keeps everybody else out."""
        return self._read_connection

    def close_reader(self) -> None:
        """Close the read connection; the next read opens another one."""
        connection, self._read_connection = self._read_connection, None
        if connection is not None:
            connection.close()

    # --- writing --------------------------------------------------------------------------------

    def alone(self, work: Callable[[Connection], T]) -> T | None:
        """Run `work` outside of any transaction while nobody writes.

        Returns None, without doing anything, if this thread is already inside a write.

        Raises:
            ReplacedError: if another file is at the path.
        """
        return self.writer.alone(lambda: self.write_connection.alone(work))

    def keep_out(self, work: Callable[[], T], patience: float = SNAPSHOT_SECONDS) -> T | None:
        """Run `work` while nobody else writes or reads, and no write connection is open.

        Waits `patience` seconds for long reads. Returns None, without doing anything, inside such
        work of the same thread.
        """

        def without_readers() -> T:
            with self._read_lock:
                self._snapshots.await_end(patience)
                return work()

        return self.writer.alone(without_readers)

    def empty_log(self) -> None:
        """Checkpoint the write-ahead log and truncate it, as far as readers allow.

        Raises:
            OutboxError: if SQLite or the operating system reports an error.
        """
        self.writer.alone(self._empty_log)

    def _empty_log(self) -> None:
        lock = self.lock
        try:
            lock.acquire()
            if swap.file_identity(self.path) == self.file:
                with self.engine(writer=True).connect() as connection:
                    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
        except (SQLAlchemyError, OSError) as error:
            raise errors.explain(self.path, error) from error
        finally:
            lock.release()

    def writing_trouble(self) -> str | None:
        """Return why a call has waited for about a second to be written, or None if none has."""
        since = self.writer.waiting_since()
        if since is None or (waited := monotonic() - since) < _SLOW_SECONDS:
            return None
        return (
            f"an event has waited {waited:.1f} s to be written: another process holds the lock "
            f"{self.lock.path}, or the disk does not answer"
        )

    # --- the files ------------------------------------------------------------------------------

    def are_in_place(self) -> bool:
        """Return False if a file or descriptor of the outbox is no longer the one opened here.

        Takes about 10 µs and no write lock, so it is only a first check.
        """
        self.upload_lock.drop_lost()
        files = held_files.of(self.file)
        if files is None or not files.shares:
            return True
        return not self.lock.is_replaced() and not files.are_lost() and files.are_at_path()

    def renew_upload_lock(self) -> None:
        """Close the upload lock if its file was replaced, so that the new file is used."""
        if self.upload_lock.is_replaced():
            self.upload_lock.close()

    # --- closing and forking --------------------------------------------------------------------

    def close_stale(self) -> None:
        """Close the connection to files that are no longer at their paths, if there is one.

        It may be all that is left of them: only for a caller that has what they held, or at last.
        """
        stale = self.write_connection.take_stale()
        if stale is not None:
            stale.close()

    def pause(self, frame: FrameType) -> bool:
        """Close every connection and keep everybody out until `resume`, for a fork.

        SQLite's connections must not survive a fork: both processes would believe that they hold
        the same file locks. Returns False inside work that already keeps everybody out.

        Args:
            frame: The call that forks. The pause ends when it continues, if not before.
        """
        with self._read_lock:
            self._snapshots.await_end(SNAPSHOT_SECONDS)
        if not self.writer.hold(frame):
            return False
        self._read_lock.acquire()
        self.close_reader()
        return True

    def resume(self) -> None:
        """End a `pause`, in the process that called it."""
        try:
            self._read_lock.release()
        finally:
            self.writer.resume()

    def close_inherited(self) -> None:
        """Close, in a child whose fork called no hooks, the connections inherited from the parent.

        While they are open, SQLite believes that this process holds the parent's locks. A
        connection that a thread of the parent was using may have an internal lock of SQLite's that
        nobody releases: it stays open for good.
        """
        lent, self._read_connection = self._read_connection, None
        self._let_go(lent, idle=self._read_lock.acquire(blocking=False))
        idle = self.writer.is_idle()
        for connection in self.write_connection.inherited():
            self._let_go(connection, idle=idle)

    @staticmethod
    def _let_go(connection: Connection | None, *, idle: bool) -> None:
        if connection is not None and idle:
            connection.close()
        elif connection is not None:
            _in_use_at_fork.append(connection)

    def restart_in_child(self) -> None:
        """Start over in a forked child, with new locks; connections are opened on first use."""
        self._begin_reading()
        self.writer.restart_in_child(self.write_connection.restart_in_child())
        self.upload_lock.forget()

    def close(self) -> None:
        """Close connections and lock files for good."""
        self._closed = True
        self.writer.close(then=lambda: self.write_connection.close_lock())
        self.close_stale()
        with self._read_lock:
            self.close_reader()
        self._snapshots.await_end(SNAPSHOT_SECONDS)
        self.upload_lock.close()

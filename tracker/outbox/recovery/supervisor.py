"""`OutboxFile`: the SQLite file as one process has it open, and its replacement when it must be."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from tracker import canonical, log
from tracker.clock import monotonic
from tracker.errors import (
    ConfigurationError,
    OutboxDamagedError,
    OutboxError,
    TrackerClosedError,
)
from tracker.outbox.files import held_files, open_files, swap
from tracker.outbox.files.file_lock import FileLock
from tracker.outbox.files.open_files import LostFilesError, ReplacedError
from tracker.outbox.recovery import backup, damage
from tracker.outbox.recovery.rescue import Rescue
from tracker.outbox.schema import create, errors, guard
from tracker.outbox.schema.errors import is_disk_full
from tracker.outbox.sqlite.engine import make_engine
from tracker.outbox.store import identity
from tracker.outbox.store.group_commit import GroupCommit
from tracker.outbox.store.snapshots import Snapshots
from tracker.outbox.store.transaction import driver_of
from tracker.outbox.store.write_connection import WriteConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import FrameType

    from sqlalchemy import Connection

    from tracker.config import APIConfig
    from tracker.outbox.files.held_files import HeldFiles
    from tracker.outbox.store.identity import Owner

T = TypeVar("T")

FileId: TypeAlias = "tuple[int, int] | None"
"""Device and inode."""

SNAPSHOT_SECONDS = 5.0
"""How long a fork or a close waits for long reads to end."""
_LOOK_SECONDS = 5.0
"""How often the sync thread looks whether the file is still the one that is open."""
_MEND_SECONDS = 60.0
"""The least time between two salvages: a disk that damages all it gets should not be filled."""
_MEND_AGAIN_SECONDS = 1.0


_in_use_at_fork: list[Connection] = []
"""The parent's connections that a child can neither use nor close."""


class OutboxFile:
    """Connections and locks of one process on one outbox file, whichever file is at the path.

    Owns what `Outbox` says, but for memory buffer and ballast. Where the file turns out damaged,
    deleted or replaced, `mend` opens another one in its place.

    Attributes:
        path: Where the file is.
        file: Which one is open, by device and inode, as long as it is.
        generation: How many files were opened here; inodes are used again.
        owner: Whose it is.
        upload_lock: The sync worker's.
    """

    def __init__(self, config: APIConfig, *, check_owner: bool) -> None:
        self.path: Path = config.outbox_path
        self.file: FileId = None
        self.generation = 0
        self.owner: Owner
        self._config = config
        self._check_owner_too = check_owner
        lock = FileLock(
            self.path.with_name(f"{self.path.name}.lock"), damage.LOCK_MARK, like=self.path
        )
        self.upload_lock = FileLock(
            self.path.with_name(self.path.name + ".sync-lock"), like=self.path
        )
        engine = make_engine(self.path, config.durability, writer=True)
        self._chain_key = canonical.key_bytes(config.chain_key)
        self._writer: GroupCommit[WriteConnection] = GroupCommit(
            WriteConnection(engine, lock, self.path, self._chain_key)
        )
        self._readers = make_engine(self.path, config.durability, writer=False)
        self._read_lock = threading.RLock()
        self._read_connection: Connection | None = None
        self._snapshots = Snapshots()
        self._damage: OutboxDamagedError | None = None
        self._rescued = Rescue()
        self._look_at = monotonic() + _LOOK_SECONDS  # opening it looks at everything
        self._mend_at = 0.0
        self._closed = False
        try:
            self._open_or_begin_anew()
        except BaseException as error:
            self._shut()
            if isinstance(error, OSError):  # as where its folder may not be looked into
                raise errors.explain(self.path, error) from error
            raise

    @property
    def _write_connection(self) -> WriteConnection:
        """The one in use: where a call was interrupted, another one takes its place."""
        return self._writer.backend

    @property
    def _lock(self) -> FileLock:
        return self._write_connection.lock

    # --- opening --------------------------------------------------------------------------------

    def _open_or_begin_anew(self) -> None:
        before = swap.file_identity(self.path)
        try:
            self._finish_interrupted()
            self._open()
        except OutboxDamagedError as error:
            self._begin_anew(error)
        except OutboxError as error:
            if before in (None, swap.file_identity(self.path)):
                raise
            # Another process exchanged the file at that moment. It does not while we have the lock.
            self._begin_anew(ReplacedError(str(error)))

    def _finish_interrupted(self) -> None:
        if swap.is_interrupted(self.path):
            self._lock.acquire()
            try:
                swap.finish_interrupted(self.path)
            finally:
                self._lock.release()

    def _open(self) -> None:
        """Open the file at the path: see that it is an outbox, create or migrate it if need be.

        Raises:
            OutboxError: or one of its kinds, if that cannot be.
            ConfigurationError: if it belongs to another client id or base URL.
        """
        try:
            create.create_file(self.path)
            file = swap.file_identity(self.path)
            if file is None:
                raise ReplacedError(f"the outbox {self.path} was deleted at once")
            open_files.entered(file, if_first=self._check)
            self._leave_file()
            self.file = file
            self._prepare()
            with self.reading() as connection:
                self.owner = identity.read(connection)
                if self._check_owner_too:
                    backup.refuse(connection, self.path)
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise errors.explain(self.path, error) from error
        if self._check_owner_too:
            self._check_owner()
        self._write_connection.go_on_in(file)
        self.generation += 1

    def _check(self) -> None:
        """See that the file is an outbox in working order.

        A sound log may look damaged while another process begins it anew. So what looks so is
        looked at again under the write lock, when nobody writes.
        """
        try:
            damage.check(self.path)
        except OutboxDamagedError:
            held = self._lock.held
            if not held:
                self._lock.acquire()
            try:
                damage.check(self.path)
            finally:
                if not held:
                    self._lock.release()

    def _prepare(self) -> None:
        """Create or migrate the file if it needs it."""
        config = self._config
        with self._readers.connect() as connection:
            current = create.is_current(connection)
        if not current:
            held = self._lock.held
            self._lock.acquire()
            try:
                with self._readers.connect() as connection:
                    current = create.is_current(connection)  # another process may have been first
                if not current:
                    engine = make_engine(self.path, config.durability, writer=True)
                    create.bring_up_to_date(engine, config.client_id, config.base_url)
            finally:
                if not held:
                    self._lock.release()

    def _check_owner(self) -> None:
        config = self._config
        _, client_id, base_url, _ = self.owner
        if (client_id, base_url) != (config.client_id, config.base_url):
            raise ConfigurationError(
                f"the outbox {self.path} belongs to client {client_id!r} and sends to {base_url}; "
                f"the configuration says client {config.client_id!r} and {config.base_url}. "
                "Give each its own outbox_path (SDK_OUTBOX_PATH), or move this outbox with "
                "`tracker-sync rebind`"
            )

    def _leave_file(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            open_files.left(file)

    # --- reading --------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend the read connection to this thread; other readers wait, writers do not.

        Raises:
            OutboxError: if SQLite or the system failed.
            TrackerClosedError: if the outbox is closed.
        """
        with self._read_lock:
            self._check_open()
            try:
                if self._read_connection is None:
                    self._read_connection = self._connect_reader(find=True)
                self._check_descriptors(self._read_connection)
                yield self._read_connection
            except BaseException as error:
                # Whatever it was, Ctrl-C included, it may have left the connection unusable.
                self._close_read_connection()
                if isinstance(error, (SQLAlchemyError, sqlite3.Error, OSError)):
                    raise self._explain(error) from error
                if isinstance(error, (TypeError, ValueError)):
                    self._blame_values(error)
                raise

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Lend a read connection of the caller's own, for long reads. A fork waits for its end.

        Raises:
            OutboxError: if SQLite or the system failed.
            TrackerClosedError: if the outbox is closed.
        """
        self._check_open()
        self._snapshots.begin()
        try:
            with self._connect_reader() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise self._explain(error) from error
        except (TypeError, ValueError) as error:
            self._blame_values(error)
            raise
        finally:
            self._snapshots.end()

    def _connect_reader(self, *, find: bool = False) -> Connection:
        """Connect; then see that file and log, which SQLite opens by name, were both ours.

        Args:
            find: Whether the connection is to stay, so that its descriptors should be known.

        Raises:
            OutboxDamagedError: if another file is at the path.
        """
        try:
            held_files.check(self.path)
        except LostFilesError as error:
            raise self._explain(error) from error
        connection = self._readers.connect()
        try:
            driver = driver_of(connection)
            try:
                driver.hold(self.path, find=find)
            except ReplacedError as error:
                raise self._explain(error) from error
            if swap.file_identity(self.path) != self.file:
                gone = ReplacedError(f"the outbox {self.path} was deleted or replaced")
                raise self._explain(gone)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_descriptors(self, connection: Connection) -> None:
        """See that no part of this process has closed descriptors of a connection.

        Raises:
            LostFilesError: if one has.
        """
        held = driver_of(connection).held
        if held is not None and not held.is_open():
            held_files.check(self.path)

    def _explain(self, error: Exception) -> OutboxError:
        """Return our own error; where it says that the file is damaged, remember to mend it."""
        explained = errors.explain(self.path, error)
        if isinstance(explained, OutboxDamagedError):
            self._damage = explained
        self._look_at = 0.0
        return explained

    def _blame_values(self, error: Exception) -> None:
        """Return unless values of wrong types in damaged bookkeeping can be what stopped a read.

        Raises:
            OutboxDamagedError: if so.
        """
        with contextlib.suppress(SQLAlchemyError), self._connect_reader() as connection:
            try:
                guard.check_values(connection)
            except OutboxDamagedError as damage:
                raise self._explain(damage) from error

    def _check_open(self) -> None:
        if self._closed:
            raise TrackerClosedError("the outbox was closed; make a new tracker to log again")

    def _close_read_connection(self) -> None:
        connection, self._read_connection = self._read_connection, None
        if connection is not None:
            connection.close()

    def read_owner(self) -> None:
        """Look again whose outbox it is."""
        with self.reading() as connection:
            self.owner = identity.read(connection)

    # --- damage and replacement -----------------------------------------------------------------

    def look(self, *, now: bool = False) -> bool:
        """See whether file and locks are still those that are open; mend what is not.

        For the sync thread to call every second: it does something every few seconds, or at once
        after trouble. Tells whether it looked, and found or made all to be well.

        Raises:
            OutboxError: if the outbox cannot be written, or not be mended.
        """
        if not now and monotonic() < self._look_at and self._files_are_in_place():
            return False
        self._look_at = monotonic() + _LOOK_SECONDS
        generation = self.generation
        self._renew_locks()
        try:
            if self._damage is not None:
                raise self._damage
            self._writer.run(damage.check_in_use(self.path))
        except OutboxDamagedError as error:
            if not self.mend(error, generation):
                raise
        except OutboxError as error:
            # Old connections should not be what prolongs it; on a full disk there may be no new.
            if not is_disk_full(error):
                self.close_connections()
            raise
        self._rescued.store(self._writer)
        return True

    def _files_are_in_place(self) -> bool:
        """Return False if a file of the outbox, or a descriptor, is no longer what is open here.

        In some 10 µs and without the write lock, so only for a first look.
        """
        self.upload_lock.drop_lost()
        files = held_files.of(self.file)
        if files is None or not files.shares:
            return True
        return not self._lock.is_replaced() and not files.are_lost() and files.are_at_path()

    def _renew_locks(self) -> None:
        """Take part in the upload lock that others will take, where its file was replaced."""
        if self.upload_lock.is_replaced():
            self.upload_lock.close()

    def mend(self, error: OutboxDamagedError, generation: int) -> bool:
        """Begin anew where the file of `generation` is damaged, or open what took its place.

        Returns False if it cannot be done now: it was done a moment ago, it failed, or this thread
        is inside a write.
        """
        if not self.keep_out(lambda: self._mend(error, generation)):
            return False
        self._rescued.store(self._writer)
        return True

    def _mend(self, error: OutboxDamagedError, generation: int) -> bool:
        try:
            if self.generation == generation:  # otherwise another thread was first
                self._begin_anew(error)
            self._damage = None
        except (OutboxError, ConfigurationError, OSError) as trouble:
            if str(trouble) != str(error):
                log.error("the outbox %s cannot be begun anew: %s", self.path, trouble)
            return False
        return True

    def _begin_anew(self, error: OutboxDamagedError) -> None:
        """Replace the damaged file, or open the one at the path if it is another; see `mend`.

        Raises:
            OutboxError: if there cannot be a new one, or not again so soon.
        """
        if self._lock.is_replaced():
            self._lock.close()
        self._lock.drop_lost()
        self._lock.acquire()
        try:
            swap.finish_interrupted(self.path)
            if self.file in (None, swap.file_identity(self.path)):
                files = held_files.of(self.file)
                if files is not None and (files.are_lost() or not files.are_at_path()):
                    self._continue(files, error)
                elif not isinstance(error, ReplacedError):
                    self._salvage(error)
            else:
                self._rescue()
                swap.leave_companions(self.path)
            self._close_read_connection()
            self._open()  # under the lock, or it might be replaced again meanwhile
        finally:
            self._lock.release()

    def _continue(self, files: HeldFiles, error: OutboxDamagedError) -> None:
        """Go on where log, index or descriptors were lost; see `continuation`.

        Raises:
            OutboxError: if a copy cannot be made. Connections stay as they are.
        """
        from tracker.outbox.recovery import continuation  # only where files were lost

        old = self._write_connection.stale or self._read_connection
        copied = False
        try:
            if files.lost:
                continuation.from_files(self.path)
                copied = True
            elif old is not None and not files.are_at_path(2) and continuation.belongs(files):
                continuation.from_connection(self.path, driver_of(old))
                copied = True
        except (sqlite3.Error, SQLAlchemyError, OSError) as trouble:
            if not errors.is_unreadable(trouble):
                raise OutboxError(f"{error}; it cannot be copied: {trouble}") from trouble
            self._rescued.take(self.path, old)
        self._close_stale()
        self._close_read_connection()
        if copied:
            if not files.lost:
                self._take_newcomers()
            continuation.put_in_place(self.path)
        log.error(
            "%s while in use. The outbox goes on with all that was stored%s",
            error,
            ", in a copy" if copied else "",
        )

    def _take_newcomers(self) -> None:
        """Take what other processes stored in the file after its log was lost, with another log."""
        with contextlib.suppress(SQLAlchemyError, sqlite3.Error, OSError):
            engine = make_engine(self.path, self._config.durability, writer=False)
            with engine.connect() as connection:
                self._rescued.add(connection)

    def _salvage(self, error: OutboxDamagedError) -> None:
        self._close_read_connection()
        if monotonic() < self._mend_at:
            raise error
        self._mend_at = monotonic() + _MEND_SECONDS
        from tracker.outbox.recovery import (
            rebuild,  # with all it needs: only where a file is damaged
        )

        config = self._config
        try:
            result = rebuild.begin_anew(
                self.path,
                (self.owner.client_id, self.owner.base_url) if self.generation else None,
                (config.client_id, config.base_url) if self._check_owner_too else None,
                self._chain_key,
            )
        except (SQLAlchemyError, sqlite3.Error, OSError) as trouble:
            self._mend_at = monotonic() + _MEND_AGAIN_SECONDS
            raise OutboxError(f"{error}; a new one cannot be begun: {trouble}") from trouble
        rebuild.say(self.path, result, error)

    def _rescue(self) -> None:
        """Take what is not delivered out of the old file, which is open here still."""
        if not self.generation:
            return  # it never was: it was replaced while it was being opened
        old = self._write_connection.take_stale() or self._read_connection
        files = held_files.of(self.file)
        if files is not None and files.are_lost():
            old = None
        if not (swap.was_salvaged(self.path, self.file) or self._goes_on_from(old)):
            self._rescued.take(self.path, old)
        if old is not None:
            old.close()

    def _goes_on_from(self, old: Connection | None) -> bool:
        """Return True if a copy took the place of the file that was open here."""
        from tracker.outbox.recovery import continuation  # only where a file was replaced

        try:
            return continuation.goes_on_from(self.path, self.owner.outbox_id, old)
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            log.info("what took the outbox's place cannot be read: %s", error)
            return False

    def empty_log(self) -> None:
        """Write the log into the file and cut it off, as far as readers allow.

        Raises:
            OutboxError: if SQLite or the system failed.
        """
        self._writer.alone(self._empty_log)

    def _empty_log(self) -> None:
        try:
            self._lock.acquire()
            if swap.file_identity(self.path) == self.file:
                engine = make_engine(self.path, self._config.durability, writer=True)
                with engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA busy_timeout = 0")
                    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
        except (SQLAlchemyError, OSError) as error:
            raise errors.explain(self.path, error) from error
        finally:
            self._lock.release()

    # --- pausing and closing --------------------------------------------------------------------

    def keep_out(self, work: Callable[[], T], patience: float = SNAPSHOT_SECONDS) -> T | None:
        """Run `work` while nobody else writes or reads, and no write connection is open.

        Long reads are waited for, so many seconds. Returns None, having done nothing, inside such
        work of this very thread.
        """

        def without_readers() -> T:
            with self._read_lock:
                self._snapshots.await_end(patience)
                return work()

        return self._writer.alone(without_readers)

    def close_connections(self) -> None:
        """Close every connection; they are opened again when they are needed."""
        self.keep_out(self._close_connections)

    def _close_connections(self) -> None:
        self._close_stale()
        self._close_read_connection()

    def _close_stale(self) -> None:
        stale = self._write_connection.take_stale()
        if stale is not None:
            stale.close()

    def pause(self, frame: FrameType) -> bool:
        """Close every connection and keep everybody out until `resume`, for a fork.

        SQLite's connections must not cross a fork: both processes would believe that they hold
        the same file locks. Returns False inside work that keeps everybody out.

        Args:
            frame: The call that forks. The pause ends when it goes on, if nobody ends it before.
        """
        if not self._files_are_in_place():
            with contextlib.suppress(OutboxError):  # said by `look` or the next write
                self.look(now=True)
        with self._read_lock:
            self._snapshots.await_end(SNAPSHOT_SECONDS)
        if not self._writer.hold(frame):
            return False
        self._read_lock.acquire()
        self._close_connections()
        return True

    def resume(self) -> None:
        """End a `pause`, in the process that called it."""
        try:
            self._read_lock.release()
        finally:
            self._writer.resume()

    def free_what_is_over(self) -> None:
        """Let others go on where a call was interrupted and left the outbox locked; cheap."""
        self._writer.free_what_is_over()

    def close_inherited(self) -> None:
        """Close, in a child whose fork called no hooks, the connections that it has of its parent.

        SQLite would believe that this process holds the parent's locks as long as they are open.
        One that a thread of the parent was using may have a lock of SQLite's inside that nobody
        frees: it stays open for good.
        """
        lent, self._read_connection = self._read_connection, None
        self._let_go(lent, idle=self._read_lock.acquire(blocking=False))
        idle = self._writer.is_idle()
        for connection in self._write_connection.inherited():
            self._let_go(connection, idle=idle)

    @staticmethod
    def _let_go(connection: Connection | None, *, idle: bool) -> None:
        if connection is not None and idle:
            connection.close()
        elif connection is not None:
            _in_use_at_fork.append(connection)

    def restart_in_child(self) -> None:
        """Begin afresh in a forked child: new locks, connections opened on first use.

        What waits in memory stays the parent's to write.
        """
        self._read_lock = threading.RLock()
        self._read_connection = None
        self._snapshots = Snapshots()
        self._rescued = Rescue()
        self._writer.restart_in_child(self._write_connection.restart_in_child())
        self.upload_lock.forget()

    def _shut(self) -> None:
        self._closed = True
        self._writer.close(then=lambda: self._write_connection.close_lock())
        self._close_stale()
        with self._read_lock:
            self._close_read_connection()
        self._snapshots.await_end(SNAPSHOT_SECONDS)
        self.upload_lock.close()
        self._leave_file()

"""`Outbox`: one SQLite file, opened once in a process."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tracker import canonical, log
from tracker.erasure import ErasureResult, subject_of
from tracker.errors import (
    ConfigurationError,
    OutboxError,
    OutboxFullError,
    TrackerClosedError,
)
from tracker.outbox import (
    account,
    chain_key,
    erasure,
    open_files,
    owner,
    retention,
    schema,
    scrub,
    uploads,
)
from tracker.outbox.buffer import MemoryBuffer
from tracker.outbox.engine import make_engine
from tracker.outbox.locks import FileLock
from tracker.outbox.snapshots import Snapshots
from tracker.outbox.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.config import APIConfig
    from tracker.events import Event
    from tracker.outbox.links import KeyMemory
    from tracker.outbox.writer import Transaction

T = TypeVar("T")

_SIZE_CHECK_EVERY = 64
"""Events between two looks at the outbox's size."""
_LOOK_AGAIN_SECONDS = 1.0
"""How long a full outbox is taken for full without another look."""
_SNAPSHOT_SECONDS = 5.0
"""How long a fork or a close waits for long reads to end."""


class Outbox:
    """The durable queue between logging calls and the collector.

    Owns, in one process: the write side (`Writer`: connection, leadership, the write-lock file
    ``<outbox>.lock``), one read connection with its lock, the memory buffer, and the upload lock
    ``<outbox>.sync-lock``, which the sync worker takes. Any thread may call any method. Whoever
    takes more than one of the locks takes the buffer's first, then leadership, then the reader's.

    Args:
        config: Settings; the path, durability, `on_error` and bounds are used here.
        check_owner: False opens an outbox that belongs to another client id or base URL too, as
            operators' commands do.

    Raises:
        OutboxError: or one of its kinds, if the file cannot be opened or is not an outbox.
        ConfigurationError: if the outbox belongs to another client id or base URL.
    """

    def __init__(self, config: APIConfig, *, check_owner: bool = True) -> None:
        self.path: Path = config.outbox_path
        self._config = config
        schema.create_file(self.path)
        found = self.path.stat()
        self._file = (found.st_dev, found.st_ino)
        self._counted = False
        self._lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        self.upload_lock = FileLock(self.path.with_name(self.path.name + ".sync-lock"))
        engine = make_engine(self.path, config.durability, writer=True)
        self._chain_key = canonical.key_bytes(config.chain_key)
        self._writer = Writer(engine, self._lock, self.path, self._chain_key)
        self._readers = make_engine(self.path, config.durability, writer=False)
        self._read_lock = threading.RLock()
        self._read_connection: Connection | None = None
        self._snapshots = Snapshots()
        self._buffer = MemoryBuffer(config.memory_buffer_events)
        self.retention = retention.Retention(config.retention)
        self._until_size_check = 0
        self._full: OutboxFullError | None = None
        self._look_again_at = 0.0
        self._closed = False
        self.on_commit: Callable[[], None] = _nothing
        try:
            self._prepare()
            with self.reading() as connection:
                self.owner = owner.read(connection)
                remembered = chain_key.read(connection)
            if check_owner:
                self._check_owner()
                self._settle_chain_key(remembered)
        except (DBAPIError, OSError) as error:
            self._shut()
            raise schema.explain(self.path, error) from error
        except BaseException:
            self._shut()
            raise

    def _prepare(self) -> None:
        """Create or migrate the file if it needs it."""
        config = self._config
        open_files.entered(self._file, if_first=lambda: schema.recognise(self.path))
        self._counted = True
        with self._readers.connect() as connection:
            current = schema.is_current(connection)
        if not current:
            self._lock.acquire()
            try:
                with self._readers.connect() as connection:
                    current = schema.is_current(connection)  # another process may have been first
                if not current:
                    engine = make_engine(self.path, config.durability, writer=True)
                    schema.bring_up_to_date(engine, config.client_id, config.base_url)
            finally:
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

    def _settle_chain_key(self, remembered: KeyMemory) -> None:
        """Note the chain key's check value in the file, so that `verify` knows of the key.

        Events are taken with any key and without: a lost key must not cost any.
        """
        chain_key.warn(self.path, self._chain_key, remembered)
        if self._chain_key is not None and remembered.check != canonical.key_check(self._chain_key):
            try:
                self.run(chain_key.remember(self._chain_key))
            except OutboxError as error:
                if self._config.on_error == "raise":
                    raise
                log.error("the outbox does not know of its chain key yet: %s", error)

    def append(self, event: Event) -> None:
        """Store `event`; on return it is durable, unless storage failed and `on_error` bears it.

        Raises:
            OutboxError: if it could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        try:
            if self._buffer.in_use:
                if not self._buffer.should_retry():
                    self._buffer.hold(event)
                    return
                self.drain_buffer()
            if self._config.max_outbox_bytes is not None:
                self._check_size()
            self._writer.append(event, lambda error: self._orphaned(event, error))
        except OutboxError as error:
            if self._config.on_error == "raise":
                raise
            self._buffer.note_failure(error)
            self._buffer.hold(event)
        else:
            self.on_commit()

    def append_all(self, events: Sequence[Event]) -> None:
        """Store `events` in one transaction, all or none of them; otherwise as `append`.

        Raises:
            OutboxError: if they could not be stored and `on_error` is ``"raise"``.
            TrackerClosedError: if the outbox is closed.
        """
        if self._buffer.in_use and not self._buffer.should_retry():
            self._hold(events)
            return
        try:
            self.drain_buffer()
            if self._config.max_outbox_bytes is not None:
                self._check_size()
            self._until_size_check -= len(events) - 1
            self._writer.run(lambda transaction: [transaction.append(event) for event in events])
        except OutboxError as error:
            if self._config.on_error == "raise":
                raise
            self._buffer.note_failure(error)
            self._hold(events)
        else:
            self.on_commit()

    def _hold(self, events: Sequence[Event]) -> None:
        for event in events:
            self._buffer.hold(event)

    def _orphaned(self, event: Event, error: Exception) -> None:
        """Keep an event whose call has returned already, for it came inside another call."""
        self._buffer.note_failure(OutboxError(str(error)))
        self._buffer.hold(event)

    def drain_buffer(self) -> None:
        """Write what waits in memory, if anything does.

        Raises:
            OutboxError: if storage still fails; everything waits on.
        """
        if self._buffer.in_use:
            with self._buffer.lock:  # whoever comes meanwhile waits, and so keeps its order
                if self._buffer.in_use:
                    self._drain_buffer()

    def _drain_buffer(self) -> None:
        events, lost = self._buffer.held()

        def job(transaction: Transaction) -> None:
            connection = transaction.connection
            for event in events:
                # An earlier drain may have been interrupted just after its commit.
                if not uploads.is_stored(connection, event.event_id):
                    transaction.append(event)
            account.discard(connection, account.BY_BUFFER, lost)

        try:
            if self._config.max_outbox_bytes is not None:
                self._check_size()
            self._writer.run(job)
        except OutboxError as error:
            self._buffer.note_failure(error)
            raise
        self._buffer.written(len(events), lost)

    @property
    def buffered(self) -> int:
        """Events that wait in memory because storage fails."""
        return len(self._buffer)

    def run(self, job: Callable[[Transaction], T]) -> T:
        """Run a write job in a transaction of its own or shared with others'.

        Raises:
            OutboxError: if it could not be committed; then nothing of it is stored.
        """
        return self._writer.run(job)

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
                    self._read_connection = self._readers.connect()
                yield self._read_connection
            except BaseException as error:
                # Whatever it was, Ctrl-C included, it may have left the connection unusable.
                self._close_read_connection()
                if isinstance(error, (SQLAlchemyError, OSError)):
                    raise schema.explain(self.path, error) from error
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
            with self._readers.connect() as connection:
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise schema.explain(self.path, error) from error
        finally:
            self._snapshots.end()

    def _check_open(self) -> None:
        if self._closed:
            raise TrackerClosedError("the outbox was closed; make a new tracker to log again")

    def erase(self, user_id: str, said: Mapping[str, Any]) -> ErasureResult:
        """Replace all data about a user by markers, and log events that name what was erased.

        Whatever was stored before the call, events in this process's memory included. In chunks:
        logging calls wait for one of them at most, and at the end while the file is written anew.
        Cut off at any point, what was erased is named; call again for the rest.

        Args:
            user_id: The user.
            said: Further fields of the erasure events: the reason.

        Raises:
            OutboxError: if the outbox cannot be read or written.
            ValidationError: if `said` leaves an event no room.
            TrackerClosedError: if the outbox is closed.
        """
        self._check_open()
        self.drain_buffer()
        with self.snapshot() as connection:
            found = erasure.find(connection, user_id)
        erased, named_by = 0, []
        for job in erasure.jobs(found, user_id, said, self._config.max_event_bytes):
            count, event_id = self.run(job)
            erased += count
            named_by.append(event_id)
        self.on_commit()
        return ErasureResult(subject_of(user_id), erased, tuple(named_by), self.scrub())

    def scrub(self) -> bool:
        """Leave no trace of what was erased in the files, if any is left; tell whether it is so.

        Nobody can write meanwhile. Programs that read an old state are waited for, some seconds.
        """
        with self.reading() as connection:
            if not scrub.due(connection):
                return True
        end = time.monotonic() + scrub.PATIENCE_SECONDS
        try:
            while not (done := self._writer.alone(scrub.scrub)):
                if done is None or time.monotonic() >= end:
                    log.warning(
                        "traces of erased events stay in the log of the outbox %s until no program "
                        "reads an old state of it; it is tried again",
                        self.path,
                    )
                    return False
                time.sleep(scrub.RETRY_SECONDS)
        except (DBAPIError, OSError) as error:
            log.warning(
                "traces of erased events stay in the outbox's files; it is tried again: %s",
                schema.explain(self.path, error),
            )
            return False
        return True

    def prune(self, retention_days: float | None = None) -> int:
        """Remove events delivered long ago, log how many of each type, and return how many.

        What the last erasure could not scrub is scrubbed too.

        Args:
            retention_days: Days to keep what no rule of `APIConfig.retention` says more of; by
                default the configured ones.
        """
        config = self._config
        days = config.retention_days if retention_days is None else retention_days
        removed = self.retention.round(self.run, days)
        if removed:
            self._shrink()
        if removed.keys() - {retention.RETENTION_APPLIED}:  # or one report would bring the next
            self.run(retention.report(removed))
            self.on_commit()
        self.scrub()
        return removed.total()

    def _free_delivered(self) -> None:
        removed, after = 0, 0
        while after >= 0:
            some, after = self.run(retention.free_delivered(after))
            removed += some
        if removed:
            self._shrink()

    def _shrink(self) -> None:
        free = -1
        while True:
            self.run(retention.give_back_pages)
            with self.reading() as connection:
                left = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            if left in (0, free):
                return
            free = left

    def _check_size(self) -> None:
        """Keep to `max_outbox_bytes`, looking only now and then.

        Raises:
            OutboxFullError: if there is no room and the policy is to refuse.
        """
        if self._full and time.monotonic() < self._look_again_at:
            raise self._full
        if self._until_size_check > 0 and not self._full:
            self._until_size_check -= 1
            return
        self._until_size_check = _SIZE_CHECK_EVERY
        self._full = None
        if self._oversized() and not self._make_room():
            self._look_again_at = time.monotonic() + _LOOK_AGAIN_SECONDS
            self._full = OutboxFullError(
                f"the outbox {self.path} has reached max_outbox_bytes "
                f"({self._config.max_outbox_bytes:,}) with undelivered events only"
            )
            raise self._full

    def _make_room(self) -> bool:
        """Remove delivered events, then what the policy gives up; tell whether there is room."""
        self._free_delivered()
        while self._oversized():
            if self._config.outbox_full == "refuse" or not self.run(retention.discard_oldest):
                return False
        return True

    def _oversized(self) -> bool:
        with self.reading() as connection:
            used = retention.used_bytes(connection)
        return used > (self._config.max_outbox_bytes or 0)

    def pause(self) -> bool:
        """Close every connection and keep everybody out until `resume`; before a fork.

        SQLite's connections must not cross a fork: both processes would believe that they hold
        the same file locks. Returns False if this thread is inside a write: it cannot wait.
        """
        self._buffer.lock.acquire()  # first, as everywhere: its holder may wait for the writer
        try:
            if not self._writer.pause():
                self._buffer.lock.release()
                return False
        except BaseException:
            self._buffer.lock.release()
            raise
        self._read_lock.acquire()
        self._snapshots.await_end(_SNAPSHOT_SECONDS)
        self._close_read_connection()
        return True

    def resume(self) -> None:
        """End a `pause`, in the process that called it."""
        self._read_lock.release()
        self._writer.resume()
        self._buffer.lock.release()

    def restart_in_child(self) -> None:
        """Begin afresh in a forked child: new locks, connections opened on first use.

        What waits in memory stays the parent's to write.
        """
        self._read_lock = threading.RLock()
        self._read_connection = None
        self._snapshots = Snapshots()
        self._buffer = MemoryBuffer(self._config.memory_buffer_events)
        self._writer.restart_in_child()
        self.upload_lock.forget()

    def close(self) -> None:
        """Write out what is in memory, then close connections and lock files, for good."""
        if self._closed:
            return
        try:
            self.drain_buffer()
        except OutboxError as error:
            log.error(
                "%d events that waited in memory are lost, for the outbox cannot be written: %s",
                len(self._buffer) + self._buffer.lost,
                error,
            )
        else:
            self._anchor()
        self._shut()

    def _anchor(self) -> None:
        try:
            self._writer.anchor()
        except OutboxError as error:  # what is stored is stored; only its end is not noted
            log.info("where the outbox ends could not be noted: %s", error)

    def _shut(self) -> None:
        self._closed = True
        self._writer.close()
        with self._read_lock:
            self._close_read_connection()
        self._snapshots.await_end(_SNAPSHOT_SECONDS)
        self.upload_lock.close()
        if self._counted:
            self._counted = False
            open_files.left(self._file)

    def _close_read_connection(self) -> None:
        connection, self._read_connection = self._read_connection, None
        if connection is not None:
            connection.close()


def _nothing() -> None:
    """Stand in for `on_commit` until a worker listens."""

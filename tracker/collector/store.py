"""`Store`: the collector's database, and the one place that knows which kind it is."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy
from sqlalchemy import event as listen
from sqlalchemy import func, select, union
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from tracker.collector import erasure
from tracker.collector.batch import ReceivedEvent
from tracker.collector.schema import bring_up_to_date
from tracker.collector.tables import api_keys, events
from tracker.errors import ConfigurationError, TrackerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, RowMapping

    from tracker.collector.batch import Batch

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 30
_FETCH_ROWS = 100
_COLUMNS = ("client_id", "outbox_id", "sent_at_ms", "received_at_ms", *ReceivedEvent._fields)


class StorageError(TrackerError):
    """The database could not be read or written; nothing of the call was stored."""


class Stored(NamedTuple):
    """What became of a batch's valid events: `accepted` are new, `duplicates` were here already."""

    accepted: int
    duplicates: int


class IntegrityRow(NamedTuple):
    """What a proof of completeness needs of one event."""

    seq: int
    event_id: str
    digest: str
    chain: str


class Store:
    """Events and API keys in SQLite or PostgreSQL.

    Any thread may call any method. The store owns its engine, hence every connection, and the
    locks around writing: one thread of one process writes an SQLite database at a time, because
    versions before 3.51.3 can damage a file when a checkpoint races another writer (see
    ``_FileLock``); in PostgreSQL one transaction at a time writes a client's events, so that
    their ids become visible in ascending order and a reader by id skips none.

    Args:
        database: Path of an SQLite file, which is made with mode 0600 (its folder with 0700) if
            it is absent, or an SQLAlchemy URL.

    Raises:
        ConfigurationError: `database` is no path or URL that can be used, or its driver is missing.
        StorageError: The database cannot be opened.
    """

    def __init__(self, database: str | Path) -> None:
        url = _parse(database)
        self._file_lock: _FileLock | None = None
        self._log_holds_erased = False
        with _translated():
            if url.get_backend_name() == "sqlite":
                self._file_lock = _FileLock(_make_file(url))
            self._engine = _make_engine(url)
            self._insert = _insert_unless_known(self._engine.dialect.name)
            self._writer = self._engine.execution_options(tracker_writes=True)
            self._reader = self._engine
            if self._engine.dialect.name == "postgresql":
                # By default each statement there sees what was committed meanwhile.
                self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ")
            try:
                with self.writing("schema") as connection:
                    bring_up_to_date(connection)
                if self._file_lock is not None:
                    self._empty_log()  # one that broke off may have left erased data in it
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close every connection. The store can be used again; it opens new ones."""
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Lend a connection within one read transaction: one consistent view.

        Raises:
            StorageError: for every trouble with the database, in the block as well.
        """
        with _translated(), self._reader.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def writing(self, scope: str) -> Iterator[Connection]:
        """Lend a connection within one write transaction, which is durable when the block ends.

        Args:
            scope: Writers of the same scope exclude each other; in SQLite all writers do.

        Raises:
            StorageError: for every trouble with the database, in the block as well.
        """
        with (
            _translated(),
            self._file_lock or contextlib.nullcontext(),
            self._writer.begin() as connection,
        ):
            if connection.dialect.name == "postgresql":
                # Durable before the answer, whatever the server's default is.
                connection.exec_driver_sql("SET LOCAL synchronous_commit TO on")
                connection.execute(select(func.pg_advisory_xact_lock(_lock_number(scope))))
            yield connection

    def check(self) -> None:
        """Return if the database answers.

        Raises:
            StorageError: if not.
        """
        with self.reading() as connection:
            connection.execute(select(api_keys.c.id).limit(1)).first()

    def store_batch(self, batch: Batch, received_at_ms: int) -> Stored:
        """Store a batch's valid events; what is here already by its `event_id` stays as it is.

        Events that a ``compliance.erased`` event of the batch names are erased with it, and those
        that an earlier one named are stored as erased.

        Raises:
            StorageError: nothing of the batch was stored.
        """
        if not batch.events:
            return Stored(0, 0)
        with self.writing(batch.client_id) as connection:
            named = erasure.named_in(connection, batch.client_id, batch.events)
            erased = erasure.erase(connection, batch.client_id, named)
            stored = erasure.as_stored(connection, batch.client_id, batch.events, named)
            common = (batch.client_id, batch.outbox_id, batch.sent_at_ms, received_at_ms)
            rows = [common + event for event in stored]
            accepted = connection.exec_driver_sql(self._insert, rows).rowcount
        self._log_holds_erased = self._log_holds_erased or erased > 0
        if self._log_holds_erased:
            self._empty_log()
        return Stored(accepted, len(batch.events) - accepted)

    def _empty_log(self) -> None:
        """Empty SQLite's write-ahead log, which still holds what was erased.

        Not while somebody reads an old state, which the log holds for them: then it is tried again
        with the next batch, and when the database is opened.
        """
        with self._file_lock or contextlib.nullcontext():
            # Not by SQLAlchemy: that begins a transaction, and a checkpoint must not be in one.
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA busy_timeout=0")
                busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                cursor.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
                self._log_holds_erased = bool(busy)
            except sqlite3.Error as error:
                # The batch is stored, and its sender has to hear so.
                logger.warning("erased data is still in the database's log: %s", error)
                connection.invalidate()
            finally:
                connection.close()

    def events_after(
        self, client_id: str, after: int, limit: int, max_page_bytes: int
    ) -> tuple[list[RowMapping], int | None]:
        """Return a page of a client's events in stored order and where the next page begins.

        Args:
            client_id: Whose events.
            after: Return events with a greater `id` only.
            limit: Events on the page, 1 or more.
            max_page_bytes: End the page early once its ``data`` has so many characters.

        Returns:
            The rows, and the last row's id if more follow, otherwise None.

        Raises:
            StorageError: the database could not be read.
        """
        query = (
            select(events)
            .where(events.c.client_id == client_id, events.c.id > after)
            .order_by(events.c.id)
            .limit(limit + 1)
            .execution_options(yield_per=_FETCH_ROWS)
        )
        page: list[RowMapping] = []
        size = 0
        with self.reading() as connection, connection.execute(query) as result:
            for row in result.mappings():
                if len(page) == limit or size >= max_page_bytes:
                    return page, page[-1]["id"]
                page.append(row)
                size += len(row["data"])
        return page, None

    def conversation(self, client_id: str, session_id: str) -> list[RowMapping]:
        """Return a session's events, outbox by outbox in order of first receipt, each by `seq`.

        Raises:
            StorageError: the database could not be read.
        """
        first_receipt = func.min(events.c.id).over(partition_by=events.c.outbox_id)
        query = (
            select(events)
            .where(events.c.client_id == client_id, events.c.session_id == session_id)
            .order_by(first_receipt, events.c.seq, events.c.id)
        )
        with self.reading() as connection:
            return list(connection.execute(query).mappings())

    def outbox_ids(self, client_id: str) -> list[str]:
        """Return the outboxes that a client sent events from, in order of first receipt.

        Raises:
            StorageError: the database could not be read.
        """
        query = (
            select(events.c.outbox_id)
            .where(events.c.client_id == client_id)
            .group_by(events.c.outbox_id)
            .order_by(func.min(events.c.id))
        )
        with self.reading() as connection:
            return list(connection.execute(query).scalars())

    def client_ids(self, after: str, limit: int) -> list[str]:
        """Return clients that have a key or sent events, in the database's order of ids.

        Args:
            after: Only ids that come later in that order.
            limit: How many at most.

        Raises:
            StorageError: the database could not be read.
        """
        sent, keyed = (
            select(table.c.client_id).where(table.c.client_id > after)
            for table in (events, api_keys)
        )
        with self.reading() as connection:
            return list(
                connection.execute(union(sent, keyed).order_by("client_id").limit(limit)).scalars()
            )

    def integrity_rows(self, client_id: str, outbox_id: str) -> Iterator[IntegrityRow]:
        """Yield an outbox's events by `seq` without holding all of them at once.

        Exhaust or close the iterator: it holds a connection until then.

        Raises:
            StorageError: the database could not be read.
        """
        query = (
            select(events.c.seq, events.c.event_id, events.c.digest, events.c.chain)
            .where(events.c.client_id == client_id, events.c.outbox_id == outbox_id)
            .order_by(events.c.seq, events.c.id)
            .execution_options(yield_per=_FETCH_ROWS)
        )
        with self.reading() as connection, connection.execute(query) as result:
            for row in result:
                yield IntegrityRow(*row)

    def chain_page(
        self, client_id: str, outbox_id: str, after: int, limit: int
    ) -> list[RowMapping]:
        """Return an outbox's next events after a seq, without their content, by `seq`.

        Args:
            client_id: Whose outbox.
            outbox_id: Which one.
            after: Return events with a greater `seq` only.
            limit: How many at most; but all that share a seq come together.

        Raises:
            StorageError: the database could not be read.
        """
        query = (
            select(*(events.c[name] for name in IntegrityRow._fields))
            .where(
                events.c.client_id == client_id,
                events.c.outbox_id == outbox_id,
                events.c.seq > after,
            )
            .order_by(events.c.seq, events.c.id)
            .limit(limit + 1)
        )
        with self.reading() as connection:
            rows = list(connection.execute(query).mappings())
        if len(rows) <= limit:
            return rows
        cut_off = rows[-1]["seq"]
        return [row for row in rows if row["seq"] != cut_off] or rows


class _FileLock:
    """One writer at a time for an SQLite file: a thread lock, and a file lock for processes.

    Owns the thread lock and, while held, the descriptor of the sidecar file. Every write and
    every checkpoint (they happen within a write's commit) is done under it, so that the race
    described on sqlite.org/wal.html as "walresetbug" cannot happen, not even between ``serve``
    and ``keys create``. The sidecar file is never deleted: that would split the lock in two.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._thread_lock = threading.Lock()
        self._descriptor = -1

    def __enter__(self) -> None:
        self._thread_lock.acquire()
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self._release()
            raise

    def __exit__(self, *_: object) -> None:
        self._release()

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        try:
            if descriptor >= 0:
                os.close(descriptor)  # which also unlocks
        finally:
            self._thread_lock.release()


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        # The driver's own words; SQLAlchemy's add the statement and a link.
        cause = getattr(error, "orig", None) or error
        raise StorageError(f"the database failed: {str(cause).strip()}") from error
    except OSError as error:
        raise StorageError(f"the database's file failed: {error}") from error


def _parse(database: str | Path) -> URL:
    if isinstance(database, Path) or "://" not in database:
        if not str(database):
            raise ConfigurationError("the database is empty; give a path or an SQLAlchemy URL")
        path = Path(database).expanduser().absolute()
        return sqlalchemy.URL.create("sqlite", database=str(path))
    try:
        url = sqlalchemy.make_url(database)
    except (ArgumentError, ValueError) as error:
        # Without the text itself: it may hold a password.
        raise ConfigurationError("the database is not a valid SQLAlchemy URL") from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigurationError(
            f"the database is of the kind {url.get_backend_name()}; give sqlite or postgresql"
        )
    return url


def _make_file(url: URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError("the database must be a file's path: memory keeps no event")
    path = Path(url.database)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives its -wal and -shm files the mode that this file has.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return path


def _make_engine(url: URL) -> sqlalchemy.Engine:
    try:
        # Errors must not carry parameters into the log: they hold what conversations say.
        engine = sqlalchemy.create_engine(url, hide_parameters=True, pool_pre_ping=True)
    except ImportError as error:
        raise ConfigurationError(f"the database's driver is missing: {error}") from error
    except SQLAlchemyError as error:
        raise ConfigurationError(f"the database's URL cannot be used: {error}") from error
    if engine.dialect.name == "sqlite":
        listen.listen(engine, "connect", _prepare_sqlite)
        listen.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's own BEGIN comes late and never as IMMEDIATE; _begin_sqlite does it instead.
    connection.isolation_level = None
    try:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")  # overwrite what is erased
    except BaseException:
        connection.close()  # the pool does not know it yet
        raise


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("tracker_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _insert_unless_known(dialect: str) -> str:
    """Return what inserts rows of `_COLUMNS`, but for events that are here already.

    As text, for the driver: handing 500 rows over by way of `execute` takes 4 times as long.
    """
    places = ", ".join(["?" if dialect == "sqlite" else "%s"] * len(_COLUMNS))
    return (
        f"INSERT INTO {events.name} ({', '.join(_COLUMNS)}) VALUES ({places}) "  # noqa: S608 - our own names
        "ON CONFLICT (client_id, event_id) DO NOTHING"
    )


def _lock_number(scope: str) -> int:
    """Return the 64-bit number that PostgreSQL knows a scope's lock by."""
    digest = hashlib.sha256(b"tracker-collector:" + scope.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)

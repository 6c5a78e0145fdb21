"""`Database`: transactions in SQLite or PostgreSQL, and checks that their commits are durable."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from tracker.collector.claim import FileClaim, ServerClaim
from tracker.collector.deadlines import Deadlines
from tracker.collector.engine import (
    BATCHES,
    OTHERS,
    file_of,
    make_engine,
    parse,
    warnings_of,
)
from tracker.collector.replication import (
    Durability,
    NotReplicatedError,
    Replication,
    lock_number,
)
from tracker.collector.schema import Schema, bring_up_to_date, require
from tracker.collector.sqlite_file import BUSY_SECONDS, SQLiteFile
from tracker.errors import ConfigurationError, TrackerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

WRITE_SECONDS = 25.0
"""How long a write may take, including the wait for a standby at its commit."""
READ_SECONDS = 60.0
"""How long a read may take."""
_CLAIM_DIGITS = 12
"""What the names of lock files are told apart by."""


class StorageError(TrackerError):
    """The database could not be read or written.

    Attributes:
        in_doubt: Whether the data may have been stored anyway.
        not_replicated: Whether the reason is that the database is not replicated as required.
    """

    def __init__(
        self, message: str, *, in_doubt: bool = False, not_replicated: bool = False
    ) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt
        self.not_replicated = not_replicated


class Database:
    """A database of either kind.

    Any thread may call any method. It owns its engine with all connections, and the locks of
    writers: one thread of one process at a time writes to an SQLite database (see `FileLock`); in
    PostgreSQL one transaction at a time stores an outbox's events, or writes what concerns a whole
    client, as an erasure does. `Horizon` says how far readers by id may go.

    Args:
        database: Path of an SQLite file, which is created with mode 0600 (its folder with 0700) if
            it does not exist, or an SQLAlchemy URL.
        durability: ``local``, ``replicated`` (PostgreSQL only), or None for the one that the server
            is configured for.
        batches: How many threads store batches at the same time; each has a connection.
        schema: What to do if the database lacks tables, columns or indexes.

    Raises:
        ConfigurationError: if `database` is not a valid path or URL, its driver is missing, it is
            not UTF-8, it is not configured for `durability`, or `schema` requires what it lacks.
        StorageError: if the database cannot be opened.
    """

    def __init__(
        self,
        database: str | Path,
        durability: Durability | None = None,
        *,
        batches: int = BATCHES,
        schema: Schema = "update",
    ) -> None:
        url = parse(database)
        self.warning: str | None = None
        self.schema_warning: str | None = None
        self._file: SQLiteFile | None = None
        self._replication = Replication(durability)
        self._deadlines = Deadlines()
        self._log_holds_erased = False
        with _translated():
            if url.get_backend_name() == "sqlite":
                if durability == "replicated":
                    raise ConfigurationError(
                        "an SQLite file has no replicas: give a PostgreSQL database, or serve with"
                        " --durability local"
                    )
                self._file = SQLiteFile(file_of(url))
            self._engine = make_engine(url, batches + OTHERS)
            self.dialect = self._engine.dialect.name
            writes: dict[str, object] = {"tracker_writes": True}
            self._reader = self._engine
            if self._file is None:
                # What a writer reads has to be as new as its lock, whatever the server's default.
                writes["isolation_level"] = "READ COMMITTED"
                self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ")
            # At once: SQLAlchemy 2.0.25 gives no isolation level to an engine that has options.
            self._writer = self._engine.execution_options(**writes)
        try:
            self._open(schema)
        except BaseException:
            self.close()
            raise

    def _open(self, schema: Schema) -> None:
        if self._file is not None:
            with _translated(), self._file.lock:
                self._file.hold()
            if schema == "require":
                with self.reading() as connection:
                    require(connection)
            elif schema == "update":
                with self.writing("schema") as connection:
                    bring_up_to_date(connection)
            self.empty_log()  # an interrupted attempt may have left erased data in it
            return
        with self.reading() as connection:
            self.warning = self._replication.settle(connection)
            if schema == "require":
                self.schema_warning = require(connection)
        if schema == "update":
            with self.writing("schema") as connection:
                self.schema_warning = bring_up_to_date(connection)

    @property
    def durability(self) -> Durability:
        """What a receipt guarantees."""
        return self._replication.durability

    def count_connections(self, count: Callable[[int], None]) -> None:
        """Call `count` with 1 whenever a connection begins to be used, and with -1 when it ends."""
        event.listen(self._engine, "checkout", lambda *_: count(1))
        event.listen(self._engine, "checkin", lambda *_: count(-1))

    def close(self) -> None:
        """Close all connections. The database can be used again and opens new ones."""
        self._engine.dispose()
        if self._file is not None:
            with _translated():
                self._file.release()

    @contextlib.contextmanager
    def reading(self, seconds: float = READ_SECONDS) -> Iterator[Connection]:
        """Yield a connection in a read transaction, with a consistent view.

        Args:
            seconds: Time limit in PostgreSQL.

        Raises:
            StorageError: for all errors of the database, also in the block.
        """
        with (
            _translated(),
            self._reader.connect() as connection,
            self._within(connection, seconds),
            connection.begin(),
        ):
            yield connection

    @contextlib.contextmanager
    def writing(
        self, scope: str, seconds: float = WRITE_SECONDS, *, within: str | None = None
    ) -> Iterator[Connection]:
        """Yield a connection in a write transaction, which is durable when the block ends.

        The block must write something, since otherwise the commit does not wait for standbys: see
        `tables.heads`.

        Args:
            scope: Writers of the same scope exclude each other; in SQLite all writers do.
            seconds: Time limit in PostgreSQL.
            within: A scope that this one is a part of. Writers of the whole and of a part exclude
                each other; those of two parts do not.

        Raises:
            StorageError: for all errors of the database, also in the block. It is `in_doubt` if it
                is not certain whether the commit is durable as required.
        """
        state = _Doubt()
        with _translated(state):
            if self._file is not None:
                with self._file.lock:
                    self._prepare_file(self._file)
                    with self._committing(state) as connection:
                        yield connection
                    self._file.check()
                return
            with self._replicating(state, seconds) as connection:
                self._replication.begin(connection, scope, within)
                yield connection

    @contextlib.contextmanager
    def writing_some(
        self, scopes: Sequence[tuple[str, str]]
    ) -> Iterator[tuple[Connection, list[bool]]]:
        """Yield a transaction of PostgreSQL in several scopes, and which of them it may write in.

        Nobody is waited for: it may write where no other does.

        Args:
            scopes: For each what `writing` calls `within`, and its scope; none twice.

        Raises:
            StorageError: as for `writing`.
        """
        state = _Doubt()
        with _translated(state), self._replicating(state, WRITE_SECONDS) as connection:
            yield connection, self._replication.begin_some(connection, scopes)

    @contextlib.contextmanager
    def _replicating(self, state: _Doubt, seconds: float) -> Iterator[Connection]:
        with (
            self._writer.connect() as connection,
            self._within(connection, seconds),
        ):
            with connection.begin():
                yield connection
                warnings = warnings_of(connection)
                warnings.clear()
                state.in_doubt = True
            # PostgreSQL reports a commit as done even if the wait for a standby was cancelled; it
            # only adds a warning.
            if warnings:
                text = f"the commit came with a warning: {warnings[0]}"
                if self.durability == "replicated":
                    raise NotReplicatedError(text)
                raise StorageError(text, in_doubt=True)
            self._replication.confirm(connection)

    @contextlib.contextmanager
    def administering(self) -> Iterator[Connection]:
        """Yield a connection to PostgreSQL on which each statement is a transaction of its own.

        For what takes long and cannot be part of a transaction; there is no time limit.

        Raises:
            StorageError: for all errors of the database, also in the block.
        """
        engine = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        with _translated(), engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def _committing(self, state: _Doubt) -> Iterator[Connection]:
        with self._writer.connect() as connection, connection.begin():
            yield connection
            state.in_doubt = True

    def _prepare_file(self, file: SQLiteFile) -> None:
        file.hold()
        if file.carry_over():
            self._engine.dispose()

    @contextlib.contextmanager
    def claimed(self, what: str) -> Iterator[Callable[[], None]]:
        """Keep other processes from claiming the same within the block.

        Yields a function that raises a `StorageError` if the claim may be lost.

        Raises:
            ClaimedError: if another process has claimed it.
            StorageError: if the database failed.
        """
        claim: FileClaim | ServerClaim
        with _translated():
            if self._file is None:
                claim = ServerClaim(self._engine, lock_number(f"claim {what}"))
            else:
                path = self._file.path
                name = hashlib.sha256(what.encode()).hexdigest()[:_CLAIM_DIGITS]
                claim = FileClaim(path.with_name(f"{path.name}.{name}.lock"), path)

        def check() -> None:
            with _translated():
                claim.check()

        try:
            yield check
        finally:
            claim.release()

    def exclude(self, connection: Connection, scope: str) -> None:
        """Let no other write of this further scope run until the present transaction has ended.

        Only within `writing`, and in one order of scopes everywhere.
        """
        if self._file is None:
            self._replication.lock(connection, scope)

    def _within(self, connection: Connection, seconds: float) -> AbstractContextManager[None]:
        if self._file is not None:
            return contextlib.nullcontext()
        driver: Any = connection.connection.driver_connection
        return self._deadlines.within(driver.fileno(), seconds)

    def empty_log(self) -> None:
        """Empty SQLite's write-ahead log, which still contains erased data.

        This does not work while an old state is read, which the log is needed for: then it is
        retried with the next batch, and when the database is opened.
        """
        if self._file is None:
            return
        # The batch is already stored.
        with _translated(_Doubt(in_doubt=True)), self._file.lock:
            # Not with SQLAlchemy: it begins a transaction, in which a checkpoint is not possible.
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA busy_timeout=0")
                busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
                self._log_holds_erased = bool(busy)
            except sqlite3.Error as error:
                # The batch is stored, and its sender must get the receipt.
                logger.warning("erased data is still in the database's log: %s", error)
                connection.invalidate()
            finally:
                connection.close()


class _Doubt:
    """Whether a commit has been requested, so that the data may have been stored."""

    def __init__(self, *, in_doubt: bool = False) -> None:
        self.in_doubt = in_doubt


@contextlib.contextmanager
def _translated(state: _Doubt | None = None) -> Iterator[None]:
    doubt = state or _Doubt()
    try:
        yield
    except SQLAlchemyError as error:
        # The driver's message; SQLAlchemy's adds the statement and a link.
        cause = getattr(error, "orig", None) or error
        text = f"the database failed: {str(cause).strip()}"
        raise StorageError(text, in_doubt=doubt.in_doubt) from error
    except sqlite3.Error as error:
        raise StorageError(f"the database failed: {error}", in_doubt=doubt.in_doubt) from error
    except NotReplicatedError as error:
        raise StorageError(str(error), in_doubt=doubt.in_doubt, not_replicated=True) from error
    except OSError as error:
        text = f"the database's file failed: {error}"
        raise StorageError(text, in_doubt=doubt.in_doubt) from error

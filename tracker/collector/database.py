"""`Database`: transactions in SQLite or PostgreSQL, and when one of them may be believed."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from tracker.collector.deadlines import Deadlines
from tracker.collector.engine import file_of, make_engine, parse, warnings_of
from tracker.collector.replication import Durability, NotReplicatedError, Replication
from tracker.collector.schema import bring_up_to_date
from tracker.collector.sqlite_file import BUSY_SECONDS, SQLiteFile
from tracker.errors import ConfigurationError, TrackerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy import Connection

logger = logging.getLogger(__name__)

WRITE_SECONDS = 25.0
"""How long a write may take, the wait for a standby at its commit included."""
READ_SECONDS = 60.0
"""How long a read may take."""


class StorageError(TrackerError):
    """The database could not be read or written.

    Attributes:
        in_doubt: Whether what was to be written may be stored all the same.
        not_replicated: Whether the reason is that it is not replicated as it has to be.
    """

    def __init__(
        self, message: str, *, in_doubt: bool = False, not_replicated: bool = False
    ) -> None:
        super().__init__(message)
        self.in_doubt = in_doubt
        self.not_replicated = not_replicated


class Database:
    """A database, whichever of the two kinds it is.

    Any thread may call any method. It owns its engine, hence every connection, and what keeps
    writers apart: one thread of one process writes an SQLite database at a time (see `FileLock`);
    in PostgreSQL one transaction at a time writes a client's events, so that their ids become
    visible in ascending order and a reader by id skips none.

    Args:
        database: Path of an SQLite file, which is made with mode 0600 (its folder with 0700) if
            it is absent, or an SQLAlchemy URL.
        durability: ``local``, ``replicated`` (PostgreSQL only), or None for what the server is set
            up for.

    Raises:
        ConfigurationError: `database` is no path or URL that can be used, its driver is missing, it
            is not UTF-8, or not set up for `durability`.
        StorageError: The database cannot be opened.
    """

    def __init__(self, database: str | Path, durability: Durability | None = None) -> None:
        url = parse(database)
        self.warning: str | None = None
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
            self._engine = make_engine(url)
            self.dialect = self._engine.dialect.name
            self._writer = self._engine.execution_options(tracker_writes=True)
            self._reader = self._engine
            if self._file is None:
                # By default each statement there sees what was committed meanwhile.
                self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ")
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if self._file is not None:
            with _translated(), self._file.lock:
                self._file.hold()
            with self.writing("schema") as connection:
                bring_up_to_date(connection)
            self.empty_log()  # one that broke off may have left erased data in it
            return
        with self.reading() as connection:
            self.warning = self._replication.settle(connection)
        with self.writing("schema") as connection:
            bring_up_to_date(connection)

    @property
    def durability(self) -> Durability:
        """What a receipt promises."""
        return self._replication.durability

    def close(self) -> None:
        """Close every connection. It can be used again; it opens new ones."""
        self._engine.dispose()
        if self._file is not None:
            with _translated():
                self._file.release()

    @contextlib.contextmanager
    def reading(self, seconds: float = READ_SECONDS) -> Iterator[Connection]:
        """Lend a connection within one read transaction: one consistent view.

        Args:
            seconds: How long PostgreSQL may take for it.

        Raises:
            StorageError: for every trouble with the database, in the block as well.
        """
        with (
            _translated(),
            self._reader.connect() as connection,
            self._within(connection, seconds),
            connection.begin(),
        ):
            yield connection

    @contextlib.contextmanager
    def writing(self, scope: str, seconds: float = WRITE_SECONDS) -> Iterator[Connection]:
        """Lend a connection within one write transaction, which is durable when the block ends.

        What is written in the block must be enough to make the server write, or its commit waits
        for nobody: see `tables.heads`.

        Args:
            scope: Writers of the same scope exclude each other; in SQLite all writers do.
            seconds: How long PostgreSQL may take for it.

        Raises:
            StorageError: for every trouble with the database, in the block as well. Also when it is
                not certain that the commit is where it has to be; it is `in_doubt` then.
        """
        state = _Doubt()
        with _translated(state):
            if self._file is not None:
                with self._file.lock:
                    self._begin_again(self._file)
                    with self._committing(state) as connection:
                        yield connection
                    self._file.check()
                return
            with (
                self._writer.connect() as connection,
                self._within(connection, seconds),
            ):
                with connection.begin():
                    self._replication.begin(connection, scope)
                    yield connection
                    warnings = warnings_of(connection)
                    warnings.clear()
                    state.in_doubt = True
                # PostgreSQL reports a commit as done though the wait for a standby was cancelled;
                # a warning is all that it says.
                if warnings:
                    raise NotReplicatedError(f"the commit came with a warning: {warnings[0]}")
                self._replication.confirm(connection)

    @contextlib.contextmanager
    def _committing(self, state: _Doubt) -> Iterator[Connection]:
        with self._writer.connect() as connection, connection.begin():
            yield connection
            state.in_doubt = True

    def _begin_again(self, file: SQLiteFile) -> None:
        file.hold()
        if file.carry_over():
            self._engine.dispose()

    def _within(self, connection: Connection, seconds: float) -> AbstractContextManager[None]:
        if self._file is not None:
            return contextlib.nullcontext()
        driver: Any = connection.connection.driver_connection
        return self._deadlines.within(driver.fileno(), seconds)

    def empty_log(self) -> None:
        """Empty SQLite's write-ahead log, which still holds what was erased.

        Not while somebody reads an old state, which the log holds for them: then it is tried again
        with the next batch, and when the database is opened.
        """
        if self._file is None:
            return
        # The batch is stored by now.
        with _translated(_Doubt(in_doubt=True)), self._file.lock:
            # Not by SQLAlchemy: that begins a transaction, and a checkpoint must not be in one.
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA busy_timeout=0")
                busy, _, _ = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
                self._log_holds_erased = bool(busy)
            except sqlite3.Error as error:
                # The batch is stored, and its sender has to hear so.
                logger.warning("erased data is still in the database's log: %s", error)
                connection.invalidate()
            finally:
                connection.close()


class _Doubt:
    """Whether a commit has been asked for, so that nobody can say that nothing was stored."""

    def __init__(self, *, in_doubt: bool = False) -> None:
        self.in_doubt = in_doubt


@contextlib.contextmanager
def _translated(state: _Doubt | None = None) -> Iterator[None]:
    doubt = state or _Doubt()
    try:
        yield
    except SQLAlchemyError as error:
        # The driver's own words; SQLAlchemy's add the statement and a link.
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

"""An SQLAlchemy engine for SQLite or PostgreSQL, from the value of `--database`."""

from __future__ import annotations

import re
import select
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, SQLAlchemyError

from tracker.collector.sqlite_file import BUSY_SECONDS
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

_WARNINGS = "tracker_warnings"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)?://")
"""The beginning of a URL; any other text is a path, even if it contains ``://``."""
BATCHES = 8
"""How many batches are stored at the same time by default."""
OTHERS = 18
"""Connections for everything else: more than threads that use one, so that none has to wait."""
_NETWORK = {
    "connect_timeout": 5,
    # TCP alone would wait too long for a server that has disappeared.
    "tcp_user_timeout": 15_000,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}


def parse(database: str | Path) -> URL:
    """Return the URL for a path or URL.

    Raises:
        ConfigurationError: if it is not valid.
    """
    if isinstance(database, Path) or not _URL.match(database):
        if not str(database):
            raise ConfigurationError("the database is empty; give a path or an SQLAlchemy URL")
        try:
            path = Path(database).expanduser().absolute()
        except RuntimeError as error:
            raise ConfigurationError(f"the database {database!r} has no folder: {error}") from None
        # A path is never parsed as a URL, in which `#`, `?` and `%` have a meaning.
        return sqlalchemy.URL.create("sqlite", database=str(path))
    try:
        url = sqlalchemy.make_url(database)
    except (ArgumentError, ValueError) as error:
        # Without the text itself, which may contain a password.
        raise ConfigurationError("the database is not a valid SQLAlchemy URL") from error
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigurationError(
            f"the database is of the kind {url.get_backend_name()}; give sqlite or postgresql"
        )
    if url.drivername == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise ConfigurationError(
            f"the database's driver is {url.drivername}; give sqlite or postgresql+psycopg"
        )
    return url


def file_of(url: URL) -> Path:
    """Return the file of an SQLite URL.

    Raises:
        ConfigurationError: if it has none.
    """
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError("the database must be the path of a file, not in memory")
    return Path(url.database)


def files_of(database: str | Path) -> list[Path]:
    """Return what belongs to a database, whether or not it exists: nothing for PostgreSQL.

    Raises:
        ConfigurationError: if the database is not a valid path or URL.
    """
    url = parse(database)
    if url.get_backend_name() != "sqlite":
        return []
    file = file_of(url)
    suffixes = ("", "-wal", "-shm", "-journal", ".lock", ".witness-key")
    return [file.with_name(f"{file.name}{suffix}") for suffix in suffixes]


def make_engine(url: URL, connections: int = BATCHES + OTHERS) -> sqlalchemy.Engine:
    """Return an engine, whose errors never include parameters, which contain conversations.

    Args:
        url: The database.
        connections: Maximum number of connections.

    Raises:
        ConfigurationError: if the driver is missing, or the URL cannot be used.
    """
    postgresql = url.get_backend_name() == "postgresql"
    options: dict[str, Any] = {}
    if postgresql:
        named = {name: value for name, value in _NETWORK.items() if name not in url.query}
        # No prepared statements: behind PgBouncer, each transaction has another connection.
        options["connect_args"] = {**named, "prepare_threshold": None}
    try:
        engine = sqlalchemy.create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=not postgresql,  # see _check_postgresql
            pool_size=connections,
            max_overflow=0,
            **options,
        )
    except ImportError as error:
        raise ConfigurationError(f"the database's driver is missing: {error}") from error
    except SQLAlchemyError as error:
        raise ConfigurationError(f"the database's URL cannot be used: {error}") from error
    if postgresql:
        event.listen(engine, "do_connect", _connect_postgresql)
        event.listen(engine, "checkout", partial(_check_postgresql, engine.dialect))
    else:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def warnings_of(connection: Connection) -> list[str]:
    """Return PostgreSQL's warnings on a connection; the caller may empty the list."""
    warnings: list[str] = connection.info.setdefault(_WARNINGS, [])
    return warnings


def _connect_postgresql(dialect: Any, record: Any, arguments: Any, parameters: Any) -> Any:
    connection = dialect.connect(*arguments, **parameters)
    # Checked before SQLAlchemy reads any text, since SQL_ASCII would return bytes.
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        connection.close()
        raise ConfigurationError(
            f"the database's encoding is {encoding}, which cannot store all texts; create one with"
            " UTF-8, as in: createdb --encoding=UTF8 --template=template0 NAME"
        )
    warnings: list[str] = record.info.setdefault(_WARNINGS, [])
    warnings.clear()

    def keep(diagnostic: Any) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            warnings.append(str(diagnostic.message_primary))

    connection.add_notice_handler(keep)
    return connection


def _check_postgresql(dialect: Any, connection: Any, _record: object, _proxy: object) -> None:
    """Notice that the server has ended a connection, without a query for each use of one.

    A server says nothing of its own accord to a connection that is alive and idle, or next to
    nothing; what it has ended is readable.
    """
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    if not poll.poll(0):
        return
    try:
        dialect.do_ping(connection)
    except dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError("the server has ended the connection") from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python itself begins a transaction late and never IMMEDIATE; _begin_sqlite does it instead.
    connection.isolation_level = None
    try:
        connection.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")  # overwrite erased data
    except BaseException:
        connection.close()  # it is not in the pool yet
        raise


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("tracker_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

"""Migration of a collector's database to the present tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy import inspect
from sqlalchemy.schema import CreateColumn

from tracker import clock
from tracker.collector import (
    accounts,
    key_tables,  # noqa: F401 - its tables are among the metadata
)
from tracker.collector.key_trigger import add_trigger
from tracker.collector.partitioning import catalog, layout
from tracker.collector.rollups import tables as _rollups  # noqa: F401 - as above
from tracker.collector.tables import events, heads, metadata
from tracker.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Column, Connection, Index, Table

Schema = Literal["update", "require", "ignore"]
"""What to do if a database lacks something: add what is cheap, refuse, or nothing."""
_MIGRATE = "run `tracker-collector migrate`"
_UNDIVIDED = f"events are not divided by month: {_MIGRATE}"
_UNFINISHED = f"a migration was begun and not finished: {_MIGRATE}"


class Missing(NamedTuple):
    """What a database lacks.

    Attributes:
        tables: Tables.
        columns: Columns of tables that are there.
        indexes: Indexes of tables that are there.
    """

    tables: list[Table]
    columns: list[Column[object]]
    indexes: list[Index]

    def names(self) -> list[str]:
        """Return the names of tables and columns."""
        columns = [f"{column.table.name}.{column.name}" for column in self.columns]
        return [*(table.name for table in self.tables), *columns]


def lacking(connection: Connection) -> list[str]:
    """Return the names of the tables, columns and indexes that are missing."""
    found = missing(connection)
    return [*found.names(), *(str(index.name) for index in found.indexes)]


def missing(connection: Connection) -> Missing:
    """Return what a database lacks of the present tables."""
    found = Missing([], [], [])
    present = inspect(connection)
    for table in metadata.sorted_tables:
        if not present.has_table(table.name):
            found.tables.append(table)
            continue
        columns = {column["name"] for column in present.get_columns(table.name)}
        found.columns.extend(each for each in table.columns if each.name not in columns)
        indexes = {index["name"] for index in present.get_indexes(table.name)}
        found.indexes.extend(each for each in table.indexes if each.name not in indexes)
    return found


def bring_up_to_date(connection: Connection) -> str | None:
    """Create missing tables, columns, indexes and triggers; nothing else is changed.

    This happens within the caller's transaction, completely or not at all. A version only adds
    things, and added columns have a default, so that the previous version can still write to the
    database. In PostgreSQL, `events` of a new database is divided by time; of an existing one, a
    large `events` gets no index here, which would keep all from writing for as long as that takes.

    Returns:
        What `migrate` would add, for the operator; None if there is nothing.
    """
    found = missing(connection)
    metadata.create_all(connection, tables=found.tables)
    if events not in found.tables and {heads, heads.c.counted} & {*found.tables, *found.columns}:
        accounts.begin(connection)  # before columns are added, which locks the table
    add_columns(connection, found.columns)
    postgresql = _is_postgresql(connection)
    if events in found.tables and postgresql:
        layout.divide_new(connection, int(clock.wall() * 1000))
    left = []
    for index in found.indexes:
        if postgresql and index.table is events and catalog.is_big(connection):
            left.append(index)
        else:
            index.create(connection)
    add_trigger(connection)
    return _warning(connection, left) if postgresql else None


def require(connection: Connection) -> str | None:
    """Check that a database has all tables and columns; change nothing.

    Returns:
        What `migrate` would add, for the operator; None if there is nothing.

    Raises:
        ConfigurationError: if it lacks some.
    """
    found = missing(connection)
    if names := found.names():
        raise ConfigurationError(
            f"the database's schema is older than this version needs: {_MIGRATE} first (missing:"
            f" {', '.join(names)})"
        )
    return _warning(connection, found.indexes) if _is_postgresql(connection) else None


def _warning(connection: Connection, left: list[Index]) -> str | None:
    if catalog.until(connection) is not None:
        return _UNFINISHED
    if left:
        names = ", ".join(str(index.name) for index in left)
        return f"indexes are missing, without which some queries are slow ({names}): {_MIGRATE}"
    return None if catalog.is_partitioned(connection) else _UNDIVIDED


def _is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def add_columns(connection: Connection, columns: list[Column[object]]) -> None:
    """Add columns, which have a default or may be null, so that no row is read."""
    for column in columns:
        quoted = connection.dialect.identifier_preparer.format_table(column.table)
        definition = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {quoted} ADD COLUMN {definition}")

"""Migration of a collector's database to the present tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect
from sqlalchemy.schema import CreateColumn

from tracker.collector import key_tables  # noqa: F401 - its tables are among the metadata
from tracker.collector.key_trigger import add_trigger
from tracker.collector.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table


def bring_up_to_date(connection: Connection) -> None:
    """Create missing tables, columns, indexes and triggers; nothing else is changed.

    This happens within the caller's transaction, completely or not at all. A version only adds
    things, and added columns have a default, so that the previous version can still write to the
    database.
    """
    metadata.create_all(connection)
    for table in metadata.sorted_tables:
        _add_columns(connection, table)
        _add_indexes(connection, table)
    add_trigger(connection)


def lacking(connection: Connection) -> list[str]:
    """Return the names of the tables, columns and indexes that are missing."""
    found = []
    present = inspect(connection)
    for table in metadata.sorted_tables:
        if not present.has_table(table.name):
            found.append(table.name)
            continue
        columns = {column["name"] for column in present.get_columns(table.name)}
        indexes = {index["name"] for index in present.get_indexes(table.name)}
        found += [f"{table.name}.{each.name}" for each in table.columns if each.name not in columns]
        found += [str(each.name) for each in table.indexes if each.name not in indexes]
    return found


def _add_columns(connection: Connection, table: Table) -> None:
    found = {column["name"] for column in inspect(connection).get_columns(table.name)}
    quoted = connection.dialect.identifier_preparer.format_table(table)
    for column in table.columns:
        if column.name not in found:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {quoted} ADD COLUMN {definition}")


def _add_indexes(connection: Connection, table: Table) -> None:
    found = {index["name"] for index in inspect(connection).get_indexes(table.name)}
    for index in table.indexes:
        if index.name not in found:
            index.create(connection)

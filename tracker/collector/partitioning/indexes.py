"""Makes an index of PostgreSQL while others write to the table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.schema import CreateIndex

from tracker.collector.partitioning import catalog
from tracker.collector.partitioning.briefly import briefly
from tracker.collector.tables import events

if TYPE_CHECKING:
    from sqlalchemy import Connection, Index

    from tracker.collector.database import Database

_LEFT = """
SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT indisvalid AND indrelid = %s::regclass AND relname = %s
"""


def add_concurrently(database: Database, index: Index) -> None:
    """Make an index, without keeping others from writing; one that is left half made goes first.

    Raises:
        StorageError: if that fails.
    """
    assert index.table is not None  # noqa: S101 - it is one of a table of ours
    with database.reading() as connection:
        divided = index.table is events and catalog.is_partitioned(connection)
    if divided:
        _add_to_partitions(database, index)
    else:
        with database.administering() as connection:
            _make(connection, index, index.table.name, str(index.name))


def _make(connection: Connection, index: Index, table: str, name: str) -> None:
    for left in connection.exec_driver_sql(_LEFT, (table, name)).scalars():
        connection.exec_driver_sql(f'DROP INDEX CONCURRENTLY "{left}"')
    statement = str(CreateIndex(index).compile(dialect=connection.dialect))
    # The same index, maybe of a partition, and then by another name.
    _, _, definition = statement.partition(f" ON {index.table} ")
    connection.exec_driver_sql(
        f'CREATE INDEX CONCURRENTLY IF NOT EXISTS "{name}" ON {table} {definition}'
    )


def _add_to_partitions(database: Database, index: Index) -> None:
    """Make it for each partition, and then, at once, for the whole table."""
    with database.reading() as connection:
        names = [each.name for each in catalog.partitions(connection)]
    for name in names:
        with database.administering() as connection:
            _make(connection, index, name, f"{name}_{index.name}")
    # It takes those that are there for its own: only a partition made since then gets one now.
    briefly(database, "ACCESS EXCLUSIVE", index.create)

"""Foreign objects in an outbox's schema: found before any of them can take effect.

A trigger fires on our inserts and can silently drop events; a CHECK, a generated column, a conflict
clause or an index on an expression is evaluated by each of our statements. So a file is used only
if everything in its schema is what some version of tracker creates, or a view with another name:
SQLite evaluates a view only for a statement that names it, and none of ours does.

If the schema differs from tracker's by only one byte, or the bookkeeping has values of the wrong
type, that counts as damage: a salvage reads without SQLite and keeps what digests prove.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from tracker.errors import NotAnOutboxError, OutboxDamagedError
from tracker.outbox.schema import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

_REVISION_TABLE = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)
"""The statement that creates alembic's own table."""

# As bytes, because damaged text may not be valid text.
_QUERY = (
    "SELECT CAST(type AS BLOB), CAST(name AS BLOB), CAST(sql AS BLOB) FROM sqlite_master "
    "ORDER BY type DESC, name"
)
_BLANK = re.compile(r"[\s\"]")
_FUNCTIONS = ("json_", "pragma_", "sqlite_", "_alembic_")
"""Prefixes of names that are tables without being in the schema, or are temporary in migrations."""
_TOKEN = re.compile(r"'(?:[^']|'')*'|\w+|[^\w\s\"]")


class _Definition(NamedTuple):
    """A CREATE statement, regardless of white space, quotes, and the order of its columns."""

    head: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...] = ()
    tail: tuple[str, ...] = ()

    def is_part_of(self, other: _Definition) -> bool:
        """Return True if `other` is the same, or differs only by additional columns."""
        ends = (self.head, self.tail) == (other.head, other.tail)
        return ends and set(self.columns) <= set(other.columns)


def check_revision_table(connection: Connection) -> bool:
    """Return True if the file has a revision, in a table that is safe to read.

    Raises:
        NotAnOutboxError: if another object has the name of that table.
        OutboxDamagedError: if that object differs from ours by only one byte.
    """
    for kind, name, sql in _objects(connection):
        if name == "alembic_version":
            _compare(connection, kind, name, sql, older=False)
            return True
    return False


def check(connection: Connection, *, at_head: bool) -> None:
    """Return if the schema contains nothing but tracker's own tables, indexes and views.

    Args:
        connection: To the outbox.
        at_head: Whether it has the current schema. An older one may lack columns and have other
            views, which no migration evaluates; check it again after the migration.

    Raises:
        NotAnOutboxError: naming the first foreign object.
        OutboxDamagedError: if that object differs from ours by only one byte; or as `check_values`.
    """
    for kind, name, sql in _objects(connection):
        if kind == "table" and name.startswith("sqlite_"):
            continue  # SQLite's own, such as those that ANALYZE creates
        if kind == "index" and sql is None:
            continue  # created by a UNIQUE or PRIMARY KEY of the table
        if kind == "view" and not _is_reserved(name):
            continue  # an analyst's
        _compare(connection, kind, name, sql, older=not at_head)
    if at_head:
        check_values(connection)


def check_values(connection: Connection) -> None:
    """Return if the bookkeeping of an outbox with the current schema has values of valid types.

    Raises:
        OutboxDamagedError: naming a table with values of types that it never has.
    """
    for (table,) in connection.exec_driver_sql(_odd_values()):
        raise OutboxDamagedError(
            f"the outbox {connection.engine.url.database} is damaged: its table {table!r} holds "
            "values of the wrong type"
        )


def _is_reserved(name: str) -> bool:
    """Return True if a statement of tracker's, or SQLite itself, may use a name."""
    lower = name.lower()  # as SQLite compares them
    return lower.startswith(_FUNCTIONS) or lower in {ours for _, ours in _ours(tables.metadata)}


@cache
def _odd_values() -> str:
    """Return a query for the bookkeeping tables that have values of types that we never write.

    Rows of `events` are checked when they are read, by their digest, and the chain values of
    `gaps` by `verify`.
    """
    return " UNION ALL ".join(
        f"SELECT '{table.name}' WHERE EXISTS (SELECT 1 FROM {table.name} WHERE "  # noqa: S608 - our own names
        + " OR ".join(
            f"typeof({column.name}) NOT IN ('{str(column.type).lower()}'"
            + (", 'null')" if column.nullable else ")")
            for column in table.columns
        )
        + ")"
        for table in tables.metadata.sorted_tables
        if table not in (tables.events, tables.gaps)
    )


def _objects(connection: Connection) -> list[tuple[str, str, str | None]]:
    """Return kind, name and statement of each object in the schema."""
    return [
        (
            kind.decode(errors="replace"),
            name.decode(errors="replace"),
            None if sql is None else sql.decode(errors="replace"),
        )
        for kind, name, sql in connection.exec_driver_sql(_QUERY).all()
    ]


def _compare(connection: Connection, kind: str, name: str, sql: str | None, *, older: bool) -> None:
    if sql is not None and sql == statements(tables.metadata).get((kind, name)):
        return  # to the letter, as in nearly every outbox: there is nothing to parse
    wanted, found = _ours(tables.metadata).get((kind, name)), _definition(sql or "")
    if older and kind == "view" and name.lower() in tables.VIEWS:
        return  # of before, or an analyst's from before there was ours
    if wanted is None and older and found == _former().get((kind, name)):
        return
    if wanted is not None and (found == wanted or (older and found.is_part_of(wanted))):
        return
    if any(_differ_by_a_byte(sql or "", text) for text in statements(tables.metadata).values()):
        raise OutboxDamagedError(
            f"the outbox {connection.engine.url.database} is damaged in its {kind} {name!r}"
        )
    if wanted is None:
        raise _refusal(connection, f"it has the {kind} {name!r}, which is not tracker's")
    raise _refusal(connection, f"its {kind} {name!r} is not as tracker creates it")


def _differ_by_a_byte(*statements: str) -> bool:
    """Return True if two statements, ignoring space and quotes, differ by at most one character."""
    one, other = (_BLANK.sub("", statement) for statement in statements)
    same = sum(1 for _ in takewhile(_equal, zip(one, other, strict=False)))
    rest = slice(same, None), slice(same + 1, None)
    return any(one[a] == other[b] for a in rest for b in rest)


def _equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _refusal(connection: Connection, why: str) -> NotAnOutboxError:
    path = connection.engine.url.database
    return NotAnOutboxError(
        f"the outbox at {path} was changed by somebody: {why}. Nothing was written to it. If you "
        "made the change, undo it with sqlite3; otherwise move the file away, or set "
        "SDK_OUTBOX_PATH to another file"
    )


@cache
def _ours(metadata: MetaData) -> dict[tuple[str, str], _Definition]:
    """Return the definitions in an outbox at `tables.HEAD`, by kind and name."""
    return {key: _definition(sql) for key, sql in statements(metadata).items()}


@cache
def _former() -> dict[tuple[str, str], _Definition]:
    """Return the definitions that older outboxes have besides, by kind and name."""
    return {key: _definition(sql) for key, sql in tables.FORMER.items()}


@cache
def statements(metadata: MetaData) -> dict[tuple[str, str], str]:
    """Return the statements that create an outbox at `tables.HEAD`, by kind and name."""
    dialect = sqlite.dialect()
    made: dict[tuple[str, str], str] = {}
    for table in metadata.sorted_tables:
        made["table", table.name] = str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            made["index", str(index.name)] = str(CreateIndex(index).compile(dialect=dialect))
    for name, statement in zip(tables.VIEWS, tables.view_statements(), strict=True):
        made["view", name] = statement
    made["table", "alembic_version"] = _REVISION_TABLE
    return made


def _definition(sql: str) -> _Definition:
    tokens = _TOKEN.findall(sql)
    if tokens[1:2] != ["TABLE"] or "(" not in tokens:
        return _Definition(tuple(tokens))
    start = tokens.index("(")
    depth = 0
    columns: list[list[str]] = [[]]
    for position, piece in enumerate(tokens[start:], start):
        depth += (piece == "(") - (piece == ")")
        if not depth:
            tail = tokens[position + 1 :]
            return _Definition(tuple(tokens[:start]), _sorted(columns), tuple(tail))
        if piece == "," and depth == 1:
            columns.append([])
        elif position > start:
            columns[-1].append(piece)
    return _Definition(tuple(tokens))


def _sorted(columns: list[list[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(sorted(tuple(column) for column in columns))

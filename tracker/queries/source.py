"""The table of events for queries, and access to fields of ``data`` in SQLite or PostgreSQL.

Only this module knows the differences between the two databases. Every query takes ``events``: by
default the outbox's table; in the collector, one client's part of its table.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    FromClause,
    MetaData,
    Table,
    Text,
    and_,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from tracker import time_ranges

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from sqlalchemy import ColumnElement, Connection, Select
    from sqlalchemy.sql.compiler import SQLCompiler

T = TypeVar("T")

EVENTS: FromClause = Table(
    "events",
    MetaData(),
    # Unique, and ascending in the order of logging. In an outbox this is `seq`, by the name that
    # SQLite gives it; with several outboxes, `seq` alone is neither.
    Column("rowid", BigInteger, key="position", primary_key=True),
    Column("seq", BigInteger),
    Column("event_id", Text),
    Column("type", Text),
    Column("timestamp_ms", BigInteger),
    Column("agent_id", Text),
    Column("session_id", Text),
    Column("user_id", Text),
    Column("data", Text),
    Column("context", Text),
    Column("trace", Text),
)
"""An outbox's events."""

COLUMNS = tuple(EVENTS.c.keys())
"""The columns that `events` must have."""

MAX_TEXT = 1_000
"""Maximum length of a name, model or outcome in answers; longer ones are truncated."""

_FETCH_SIZES = 1_000
_MAX_INTEGER = 2**63 - 1
"""The most that both databases can store; a time beyond it matches the same events."""


def in_period(
    events: FromClause, since_ms: int | None, until_ms: int | None = None
) -> list[ColumnElement[bool]]:
    """Return the conditions for the events of a period.

    Args:
        events: The table of events.
        since_ms: Start of the period, Unix milliseconds; None if it has none.
        until_ms: End of the period, which is not included; None if it has none.
    """
    time, own = events.c.timestamp_ms, events is EVENTS
    conditions = []
    if since_ms is not None:
        first = max(min(since_ms, _MAX_INTEGER), -_MAX_INTEGER)
        conditions.append(time >= first)
        if own:  # it has no index of times
            conditions.append(events.c.position >= literal_column(time_ranges.first_seq(first)))
    if until_ms is not None:
        end = max(min(until_ms, _MAX_INTEGER), -_MAX_INTEGER)
        conditions.append(time < end)
        if own:
            conditions.append(events.c.position <= literal_column(time_ranges.last_seq(end)))
    return conditions


def by_position(events: FromClause) -> list[ColumnElement[bool]]:
    """Return conditions that are true of all events, and let them be read by their positions.

    They come after a lower bound of positions, for SQLite searches by the first one that it meets.
    """
    # As the collector's index has it.
    return [] if events is EVENTS else [events.c.position > literal_column("0")]


def places(connection: Connection, events: FromClause) -> tuple[int | None, int | None]:
    """Return the first and the last position; None if there are no events."""
    position, rows = events.c.position, by_position(events)
    ends = [select(end(position)).where(*rows).scalar_subquery() for end in (func.min, func.max)]
    first, last = connection.execute(select(*ends)).one()
    return first, last


def places_of_period(
    connection: Connection, events: FromClause, since_ms: int | None, until_ms: int | None
) -> tuple[int, int]:
    """Return positions between which all events of a period are, others among them."""
    first, last = -_MAX_INTEGER, _MAX_INTEGER
    if events is EVENTS:
        if since_ms is not None:
            query = time_ranges.first_seq(max(min(since_ms, _MAX_INTEGER), -_MAX_INTEGER))
            first = connection.execute(select(literal_column(query, BigInteger))).scalar_one()
        if until_ms is not None:
            query = time_ranges.last_seq(max(min(until_ms, _MAX_INTEGER), -_MAX_INTEGER))
            last = connection.execute(select(literal_column(query, BigInteger))).scalar_one()
    return first, last


def place_before(connection: Connection, events: FromClause, end: int, rows: int) -> int:
    """Return a position that has at most so many events from it to `end`, which is not included.

    It is 0 or less if there are no more events before.
    """
    if events is EVENTS:  # it has no holes but for what was removed
        return end - rows
    position = events.c.position
    query = select(position).where(position < end, *by_position(events))
    query = query.order_by(position.desc())
    return connection.execute(query.offset(rows - 1).limit(1)).scalar() or 0


_FEW_TRACES = 100
_MOST_SESSIONS = 500
"""Maximum number of conversations in a trace; SQLite before 3.32 binds at most 999 values."""


def in_spans(events: FromClause) -> list[ColumnElement[bool]]:
    """Return the conditions for the events that are a span, or were logged in one."""
    if events is not EVENTS:
        return [events.c.trace.is_not(None)]
    # As the outbox's index has them, which holds these events only.
    return [
        literal_column("substr(trace, -5)", Text) != literal_column("'true}'"),
        literal_column("substr(trace, -34, 8)", Text) > literal_column("''"),
    ]


def in_spans_of(events: FromClause, trace_id: str) -> list[ColumnElement[bool]]:
    """Return the conditions for the events that are a span of a trace, or were logged in one."""
    if events is not EVENTS:  # a collector's have the id in a column
        return [events.c.trace_id == trace_id]
    return [
        # As the outbox's index has them.
        literal_column("substr(trace, -5)", Text) != literal_column("'true}'"),
        literal_column("substr(trace, -34, 8)", Text) == trace_id[:8],
        func.substr(events.c.trace, -34) == f'{trace_id}"}}',
    ]


def with_spans(connection: Connection, events: FromClause, trace_ids: list[str]) -> list[str]:
    """Return those traces of which there may be spans, without a look at each if they are many."""
    if events is not EVENTS or len(trace_ids) <= _FEW_TRACES:
        return sorted(trace_ids)
    beginning = literal_column("substr(trace, -34, 8)", Text)
    stored = select(beginning).select_from(events).distinct().where(*in_spans(events))
    wanted = {each[:8] for each in trace_ids}
    with connection.execute(stored.execution_options(yield_per=_FETCH_SIZES)) as result:
        found = {each for each in result.scalars() if each in wanted}
    return sorted(each for each in trace_ids if each[:8] in found)


def portions(values: Collection[T], size: int = 500) -> Iterator[list[T]]:
    """Yield values in lists that one query can bind; SQLite before 3.32 binds at most 999."""
    listed = list(values)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]


def of_trace(
    connection: Connection, events: FromClause, trace_id: str
) -> list[ColumnElement[bool]]:
    """Return the conditions for the events of a trace, given by its id of 32 hex digits."""
    if events is not EVENTS:
        return in_spans_of(events, trace_id)
    column = events.c.trace
    spans = and_(*in_spans_of(events, trace_id))
    named = func.instr(column, f'"trace_id":"{trace_id}"') > 0
    found = connection.execute(
        select(events.c.session_id).where(spans).distinct().limit(_MOST_SESSIONS)
    ).scalars().all()  # fmt: skip
    if not found:  # a turn without a span, which no index knows
        return [column.is_not(None), named]
    sessions = [session_id for session_id in found if session_id is not None]
    return [or_(spans, and_(events.c.session_id.in_(sessions), named))]


def newest_page(
    connection: Connection,
    events: FromClause,
    query: Select[Any],
    limit: int | None,
    before: int | None = None,
    max_characters: int | None = None,
) -> tuple[list[tuple[Any, ...]], int | None]:
    """Return a page of a query's rows, newest first, and the start of the next page.

    Args:
        connection: A connection to the database.
        events: The table of events.
        query: The columns to select; `data` must be the last one.
        limit: Maximum number of rows; None for all.
        before: Only rows with a lower position: the second value of the previous page.
        max_characters: End the page early once its `data` has so many; None for no limit.

    Returns:
        The rows, and the position of the last one if more follow, otherwise None.
    """
    query = query.add_columns(events.c.position).order_by(events.c.position.desc())
    if before is not None:
        query = query.where(events.c.position < before)
    if max_characters is None:
        bounded = query if limit is None else query.limit(limit + 1)
        rows = list(connection.execute(bounded))
        more = limit is not None and len(rows) > limit
        rows = rows[:limit]
    else:
        sizes = query.with_only_columns(func.length(events.c.data), maintain_column_froms=True)
        count, more = extent(connection, sizes, limit, max_characters)
        rows = list(connection.execute(query.limit(count)))
    return [tuple(row[:-1]) for row in rows], rows[-1][-1] if rows and more else None


def extent(
    connection: Connection, sizes: Select[Any], limit: int | None, max_characters: int
) -> tuple[int, bool]:
    """Return the number of rows on a page, given a query for their sizes, and whether more follow.

    So rows that are not on the page, which may be large, are never fetched. A page has at least
    one row, if there is any, and ends with the one that fills it.
    """
    count = size = 0
    if limit is not None:
        sizes = sizes.limit(limit + 1)
    with connection.execute(sizes.execution_options(yield_per=_FETCH_SIZES)) as result:
        for row_size in result.scalars():
            if count == limit or (count and size >= max_characters):
                return count, True
            count += 1
            size += row_size
    return count, False


class _Field(FunctionElement[Any]):
    """A field of a JSON column: NULL if missing, of another type, or the row is damaged."""

    inherit_cache = True

    def __init__(self, events: FromClause, field: str, column: str = "data") -> None:
        # A literal, so that PostgreSQL sees the same expression in SELECT and GROUP BY.
        super().__init__(events.c[column], literal_column(f"'{field}'"))


class text_field(_Field):  # noqa: N801 - used like a function of SQL
    """A text field: its first `MAX_TEXT` characters, with U+FFFD in place of U+0000."""

    name = "text_field"
    type = Text()
    inherit_cache = True


class number_field(_Field):  # noqa: N801
    """A numeric field."""

    name = "number_field"
    type = Float()
    inherit_cache = True


class unindexed(FunctionElement[Any]):  # noqa: N801
    """A column, by which SQLite then looks nothing up in an index."""

    name = "unindexed"
    type = Text()
    inherit_cache = True


def contains(column: ColumnElement[str], pieces: Iterable[str]) -> ColumnElement[bool]:
    """Return the condition for texts that contain some others in order.

    ASCII letters may be in upper or lower case.
    """
    escaped = (re.sub(r"([%_/])", r"/\1", piece) for piece in pieces)
    return like_any_case(column, literal("%" + "%".join([*escaped, ""]), Text()))


class like_any_case(FunctionElement[bool]):  # noqa: N801
    """Whether a text is like a pattern, whatever the case of ASCII letters."""

    name = "like_any_case"
    type = Boolean()
    inherit_cache = True


class attributes(FunctionElement[str]):  # noqa: N801
    """Attributes of a span as the text of a JSON array, null in place of each that it lacks."""

    name = "attributes"
    type = Text()
    inherit_cache = True

    def __init__(self, events: FromClause, names: Iterable[str]) -> None:
        super().__init__(events.c.data, *(literal_column(name) for name in names))


class has_tag(FunctionElement[bool]):  # noqa: N801
    """Whether an event's context has a tag with this value; NULL if it does not."""

    name = "has_tag"
    type = Boolean()
    inherit_cache = True

    def __init__(self, events: FromClause, tag: str, value: str) -> None:
        super().__init__(events.c.context, literal(tag, Text()), literal(value, Text()))


class _Half(FunctionElement[int]):
    """Half of an integer column; the sum of both is the column, once the upper is shifted back."""

    type = BigInteger()
    inherit_cache = True


class upper_half(_Half):  # noqa: N801
    """All but the lowest 32 bits of an integer, as a smaller integer."""

    name = "upper_half"
    inherit_cache = True


class lower_half(_Half):  # noqa: N801
    """The lowest 32 bits of an integer."""

    name = "lower_half"
    inherit_cache = True


@compiles(text_field, "sqlite")
def _text_for_sqlite(element: _Field, compiler: SQLCompiler, **options: Any) -> str:
    data, name = (compiler.process(clause, **options) for clause in element.clauses)
    found = f"json_extract({_without_nul(data, 'instr')}, '$.' || {name})"
    return _of_types(data, name, "'text'", f"substr({found}, 1, {MAX_TEXT})")


@compiles(number_field, "sqlite")
def _number_for_sqlite(element: _Field, compiler: SQLCompiler, **options: Any) -> str:
    data, name = (compiler.process(clause, **options) for clause in element.clauses)
    return _of_types(data, name, "'integer', 'real'", f"json_extract({data}, '$.' || {name})")


def _of_types(data: str, name: str, types: str, value: str) -> str:
    # json_extract alone would return true as 1, and text in place of a number.
    return (
        f"CASE WHEN json_valid({data}) THEN "
        f"CASE WHEN json_type({data}, '$.' || {name}) IN ({types}) THEN {value} END END"
    )


@compiles(text_field, "postgresql")
def _text_for_postgresql(element: _Field, compiler: SQLCompiler, **options: Any) -> str:
    value, name = _json(element, compiler, options)
    text = f"substr({value} ->> {name}, 1, {MAX_TEXT})"
    return f"CASE json_typeof({value} -> {name}) WHEN 'string' THEN {text} END"


@compiles(number_field, "postgresql")
def _number_for_postgresql(element: _Field, compiler: SQLCompiler, **options: Any) -> str:
    value, name = _json(element, compiler, options)
    # The pattern matches the JSON itself, in which text has quotes. Of any length, hence no float.
    return f"CAST(substring(CAST({value} -> {name} AS text) FROM '^[-0-9][-+.0-9eE]*$') AS numeric)"


@compiles(unindexed)
def _column_itself(element: unindexed, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(unindexed, "sqlite")
def _unindexed_for_sqlite(element: unindexed, compiler: SQLCompiler, **options: Any) -> str:
    return f"+{compiler.process(element.clauses, **options)}"


@compiles(like_any_case, "sqlite")
def _like_for_sqlite(element: like_any_case, compiler: SQLCompiler, **options: Any) -> str:
    column, pattern = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} LIKE {pattern} ESCAPE '/'"


@compiles(like_any_case, "postgresql")
def _like_for_postgresql(element: like_any_case, compiler: SQLCompiler, **options: Any) -> str:
    column, pattern = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} COLLATE \"C\" ILIKE {pattern} ESCAPE '/'"


@compiles(attributes, "sqlite")
def _attributes_for_sqlite(element: attributes, compiler: SQLCompiler, **options: Any) -> str:
    data, *names = (compiler.process(clause, **options) for clause in element.clauses)
    paths = ", ".join(f"'$.attributes.\"{name}\"'" for name in names)
    return f"CASE WHEN json_valid({data}) THEN json_extract({data}, {paths}) END"


@compiles(attributes, "postgresql")
def _attributes_for_postgresql(element: attributes, compiler: SQLCompiler, **options: Any) -> str:
    data, *names = (compiler.process(clause, **options) for clause in element.clauses)
    value = f"CAST({_without_nul(data, 'strpos')} AS json) -> 'attributes'"
    given = f"CASE json_typeof({value}) WHEN 'object' THEN {value} END"
    # One look for all of them: the text may be long.
    record = ", ".join(f'"{name}" json' for name in names)
    found = ", ".join(f'stored."{name}"' for name in names)
    rows = f"json_to_record({given}) AS stored({record})"
    return f"(SELECT CAST(json_build_array({found}) AS text) FROM {rows})"  # noqa: S608 - our own names


@compiles(has_tag, "sqlite")
def _tag_for_sqlite(element: has_tag, compiler: SQLCompiler, **options: Any) -> str:
    # Not by a path, in which some names cannot be written.
    context, tag, value = (compiler.process(clause, **options) for clause in element.clauses)
    each = f"json_each.key = {tag} AND json_each.type = 'text' AND json_each.value = {value}"
    found = f"EXISTS (SELECT 1 FROM json_each({context}, '$.tags') WHERE {each})"  # noqa: S608 - our own, with binds
    return f"CASE WHEN json_valid({context}) THEN {found} END"


@compiles(has_tag, "postgresql")
def _tag_for_postgresql(element: has_tag, compiler: SQLCompiler, **options: Any) -> str:
    context, tag, value = element.clauses
    stored, wanted = compiler.process(context, **options), compiler.process(value, **options)
    tags = f"CAST({_without_nul(stored, 'strpos')} AS json) -> 'tags'"
    # Processed once for each place, so that each gets a value.
    kind, text = (f"{tags} {arrow} {compiler.process(tag, **options)}" for arrow in ("->", "->>"))
    return f"CASE json_typeof({kind}) WHEN 'string' THEN {text} = {wanted} END"


@compiles(upper_half)
def _upper_for_sqlite(element: _Half, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)}) >> 32"


@compiles(lower_half)
def _lower_for_sqlite(element: _Half, compiler: SQLCompiler, **options: Any) -> str:
    return f"({compiler.process(element.clauses, **options)}) & 4294967295"


@compiles(upper_half, "postgresql")
def _upper_for_postgresql(element: _Half, compiler: SQLCompiler, **options: Any) -> str:
    return f"div({compiler.process(element.clauses, **options)}, 4294967296)"


@compiles(lower_half, "postgresql")
def _lower_for_postgresql(element: _Half, compiler: SQLCompiler, **options: Any) -> str:
    return f"mod(trunc({compiler.process(element.clauses, **options)}), 4294967296)"


def _json(element: _Field, compiler: SQLCompiler, options: dict[str, Any]) -> tuple[str, str]:
    """Return the SQL for an event's data, and for a field's name."""
    data, name = (compiler.process(clause, **options) for clause in element.clauses)
    return f"CAST({_without_nul(data, 'strpos')} AS json)", name


def _without_nul(data: str, find: str) -> str:
    r"""Return the SQL for an event's data with U+FFFD in place of U+0000.

    PostgreSQL's text cannot contain U+0000, so its JSON functions fail on it, and the answers of
    both databases must be the same. A backslash that is itself escaped, as in ``\\u0000``, does not
    begin an escape: so escaped ones are first replaced by another escape.
    """
    plain = rf"replace(replace({data}, '\\', '\u005c'), '\u0000', '\ufffd')"
    return rf"CASE WHEN {find}({data}, '\u0000') > 0 THEN {plain} ELSE {data} END"

"""Adding events to the tables of roll-ups, and rolling a day up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, exists, func, not_, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert

from tracker.collector.rollups.fields import TYPES, fields
from tracker.collector.rollups.partial import BY_DAY, agents
from tracker.collector.rollups.tables import ADDED, MOST, rolled_agents, rolled_sessions
from tracker.collector.tables import events
from tracker.queries.figures import DAY_MS

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement, Connection, FromClause, Table
    from sqlalchemy.dialects.postgresql import Insert

_LAST_MS = 2**63 - 1
"""The last time that an event may have, in the last day, which is not a whole one."""


def part(*conditions: ColumnElement[bool]) -> FromClause:
    """Return a part of the events of all clients."""
    return select(events).where(*conditions).subquery("part")


def add(connection: Connection, some: FromClause) -> None:
    """Add a part of the events to all tables."""
    add_to_days(connection, some)
    connection.execute(_upsert(rolled_agents, agents(some)))


def add_to_days(connection: Connection, some: FromClause) -> None:
    """Add a part of the events to the tables of days, out of one look at them."""
    found = fields(some)
    done = [
        _upsert(table, partial(found)).cte(f"into_{table.name}")
        for table, partial in BY_DAY.items()
    ]
    connection.execute(select(true()).add_cte(*done))
    _note_shared(connection, some)


def _note_shared(connection: Connection, some: FromClause) -> None:
    """Note which sessions of a part of the events have several rows."""
    one, other = rolled_sessions, rolled_sessions.alias("other")
    touched = select(some.c.client_id, some.c.session_id).distinct().subquery("touched")
    same = (other.c.client_id == one.c.client_id, other.c.session_id == one.c.session_id)
    differs = or_(other.c.day != one.c.day, other.c.key != one.c.key)
    connection.execute(
        update(one)
        .values(shared=true())
        .where(
            one.c.client_id == touched.c.client_id,
            one.c.session_id == touched.c.session_id,
            not_(one.c.shared),
            exists().where(*same, differs),
        )
    )


def filled(table: Table) -> list[Column[Any]]:
    """Return the columns of a table that events add to, in the order of `partial`."""
    return [column for column in table.columns if column.server_default is None]


def _upsert(table: Table, rows: Any) -> Insert:
    query = insert(table).from_select(filled(table), rows)
    merged = {
        column.name: _merged(column.info["merged"], column, query.excluded[column.name])
        for column in table.columns
        if column.info
    }
    return query.on_conflict_do_update(index_elements=list(table.primary_key), set_=merged)


def _merged(how: str, before: ColumnElement[Any], new: ColumnElement[Any]) -> Any:
    if how == ADDED:
        return func.coalesce(before + new, before, new)
    return func.greatest(before, new) if how == MOST else func.least(before, new)


def replace_day(connection: Connection, client_id: str, day: int, through: int) -> None:
    """Roll a day of a client up again, from its events up to an id."""
    for table in BY_DAY:
        connection.execute(delete(table).where(table.c.client_id == client_id, table.c.day == day))
    time, start = events.c.timestamp_ms, day * DAY_MS
    within = time < 0 if day < 0 else time.between(start, min(start + DAY_MS - 1, _LAST_MS))
    mine = (events.c.client_id == client_id, events.c.type.in_(TYPES), events.c.id <= through)
    add_to_days(connection, part(*mine, within))

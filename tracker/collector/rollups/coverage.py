"""`Covered`: what of a client's events is rolled up, and what has to be read besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, true, union_all

from tracker import clock
from tracker.collector.rollups.adding import filled, part
from tracker.collector.rollups.fields import TYPES, fields
from tracker.collector.rollups.partial import BY_DAY
from tracker.collector.rollups.position import SUMS, position
from tracker.collector.rollups.tables import rolled_stale
from tracker.collector.tables import events
from tracker.events import COMPLIANCE_ERASED
from tracker.queries.figures import DAY_MS
from tracker.queries.filters import Filters

if TYPE_CHECKING:
    from sqlalchemy import Column, ColumnElement, Connection, FromClause, Select, Table

_MOST_NEW = 50_000
"""How many events may be read beside the roll-ups; the exact query is not much slower then."""


@dataclass(frozen=True)
class Covered:
    """A client's events, as far as they are rolled up, and the others.

    Attributes:
        client_id: The client.
        position: All events up to this id are rolled up.
    """

    client_id: str
    position: int

    def rows(self, table: Table, wanted: Filters) -> FromClause:
        """Return rows of a table of roll-ups for events that match `wanted`; not yet added up.

        Whole days are read from the table; the beginning and end of a period, and what is not
        rolled up yet, are what the events themselves add to it.
        """
        event, since_ms, until_ms = events.c, wanted.since_ms, wanted.until_ms
        rolled = [table.c.client_id == self.client_id]
        mine = [event.client_id == self.client_id]
        if wanted.agent_id is not None:
            rolled.append(table.c.agent_id == wanted.agent_id)
            mine.append(event.agent_id == wanted.agent_id)
        new, edges = [event.id > self.position], []
        if since_ms is not None:
            first = -(-since_ms // DAY_MS)
            rolled.append(table.c.day >= first)
            new.append(event.timestamp_ms >= since_ms)
            edges.append((since_ms, first * DAY_MS))
        if until_ms is not None:
            end = until_ms // DAY_MS
            rolled.append(table.c.day < end)
            new.append(event.timestamp_ms < until_ms)
            edges.append((end * DAY_MS, until_ms))
        parts = [new, *(self._between(*edge) for edge in edges if edge[0] < edge[1])]
        return union_all(
            select(*filled(table), *_marks(table)).where(*rolled),
            *(_partial(table, part(*mine, *conditions)) for conditions in parts),
        ).subquery()

    def _between(self, since_ms: int, until_ms: int) -> list[ColumnElement[bool]]:
        event = events.c
        return [
            event.id <= self.position,
            event.type.in_(TYPES),  # by the index of types, of which the roll-ups count few
            event.timestamp_ms >= since_ms,
            event.timestamp_ms < until_ms,
        ]

    def new_sessions(self) -> Select[Any]:
        """Return the query for sessions with events that are not rolled up yet."""
        event = events.c
        mine = (event.client_id == self.client_id, event.id > self.position)
        return select(event.session_id).where(*mine, event.session_id.is_not(None))


def _partial(table: Table, some: FromClause) -> Select[Any]:
    marks = (true().label(column.name) for column in _marks(table))
    return BY_DAY[table](fields(some)).add_columns(*marks)


def _marks(table: Table) -> list[Column[Any]]:
    """Return the columns that are set once a row is there; what is new may have any of them."""
    return [column for column in table.columns if column.server_default is not None]


def covered(connection: Connection, client_id: str, wanted: Filters) -> Covered | None:
    """Return what is rolled up of a client; None if the exact query has to answer.

    That is where there are no roll-ups, as in SQLite; where they do not tell what is wanted, or
    only for a part of a day; where many events are not rolled up yet; and where an erasure is not.
    """
    rest: Any = wanted.without("since_ms", "until_ms", "agent_id")
    if connection.dialect.name != "postgresql" or rest != Filters() or not _has_days(wanted):
        return None
    at = close(connection, client_id, SUMS)
    stale = select(rolled_stale.c.day).where(rolled_stale.c.client_id == client_id)
    if at is None or connection.execute(stale.limit(1)).first() is not None:
        return None
    return Covered(client_id, at)


def close(connection: Connection, client_id: str, name: str) -> int | None:
    """Return up to which id a client's events are rolled up, if few are not and no erasure is.

    `name` says of which roll-ups. None if there are none, or they are not close.
    """
    at = position(connection, name)
    if at is None:
        return None
    event, mine = events.c, events.c.client_id == client_id
    new = select(event.id).where(mine, event.id > at)
    for reason in (
        new.order_by(event.id).offset(_MOST_NEW).limit(1),
        new.where(event.type == COMPLIANCE_ERASED).limit(1),
    ):
        if connection.execute(reason).first() is not None:
            return None
    return at


def _has_days(wanted: Filters) -> bool:
    """Return True if the period is longer than a day, and has a whole UTC day in it."""
    since_ms, until_ms = wanted.since_ms, wanted.until_ms
    if since_ms is None:
        return True
    if until_ms is None:
        return int(clock.wall() * 1000) - since_ms > DAY_MS
    return until_ms - since_ms > DAY_MS and -(-since_ms // DAY_MS) < until_ms // DAY_MS

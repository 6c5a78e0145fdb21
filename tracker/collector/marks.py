"""How far the events of each outbox were checked, so that the next report goes on from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, func, literal_column, select

from tracker.collector.integrity import Walk
from tracker.collector.tables import events, marks
from tracker.queries.source import unindexed

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

WORTH_NOTING = 1_000
"""Number of events read for a report from which on the next one is to be spared them."""
CHECKED_AGAIN_MS = 86_400_000
"""After this time, a report reads all events again: somebody may have changed an earlier one."""

IN_ORDER = (events.c.id > literal_column("0"),)
"""Conditions, true of all, by which a client's events are found in the order of receipt.

They come after a lower bound, for SQLite searches by the first one that it meets."""


class Mark(NamedTuple):
    """How far an outbox was checked.

    Attributes:
        last_id: The id up to which all of the client's events are known.
        checked_at_ms: When the first event was read, Unix milliseconds.
        walk: What was found.
    """

    last_id: int
    checked_at_ms: int
    walk: Walk


class New(NamedTuple):
    """What was stored of an outbox since its mark was made.

    Attributes:
        events: Number of events.
        is_late: Whether any has a seq that was passed already.
    """

    events: int
    is_late: bool


def read(connection: Connection, client_id: str, outbox_id: str) -> Mark | None:
    """Return the mark of an outbox; None if it has none."""
    columns = (marks.c.last_id, marks.c.checked_at_ms, marks.c.walk)
    row = connection.execute(select(*columns).where(*_of(client_id, outbox_id))).first()
    return None if row is None else Mark(row.last_id, row.checked_at_ms, Walk.from_json(row.walk))


def newer(connection: Connection, client_id: str, outbox_id: str, mark: Mark) -> New:
    """Return what was stored of an outbox since its mark was made."""
    event, mine = events.c, events.c.client_id == client_id
    count, lowest = connection.execute(
        select(func.count(), func.min(event.seq)).where(
            *(mine, event.id > mark.last_id, *IN_ORDER),
            unindexed(event.outbox_id) == outbox_id,
        )
    ).one()
    return New(count, bool(count) and lowest <= mark.walk.seq)


def last_id(connection: Connection, client_id: str) -> int:
    """Return the highest id of a client's events; 0 if there are none."""
    mine = (events.c.client_id == client_id, *IN_ORDER)
    return connection.execute(select(func.max(events.c.id)).where(*mine)).scalar() or 0


def first_id(connection: Connection, client_id: str, outbox_id: str) -> int:
    """Return the id of an outbox's first event; there must be one."""
    known = select(marks.c.first_id).where(*_of(client_id, outbox_id))
    found = connection.execute(known).scalar()
    if found is None:
        mine = (events.c.client_id == client_id, events.c.outbox_id == outbox_id)
        found = connection.execute(select(func.min(events.c.id)).where(*mine)).scalar_one()
    return int(found)


def note(connection: Connection, client_id: str, outbox_id: str, mark: Mark) -> None:
    """Store the mark of an outbox in place of the one before."""
    first = first_id(connection, client_id, outbox_id)
    connection.execute(delete(marks).where(*_of(client_id, outbox_id)))
    connection.execute(
        marks.insert().values(
            client_id=client_id,
            outbox_id=outbox_id,
            first_id=first,
            last_id=mark.last_id,
            checked_at_ms=mark.checked_at_ms,
            walk=mark.walk.to_json(),
        )
    )


def _of(client_id: str, outbox_id: str) -> tuple[ColumnElement[bool], ...]:
    return marks.c.client_id == client_id, marks.c.outbox_id == outbox_id

"""`Roller`: adds what arrives to the roll-ups, part by part, in the order of arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from tracker.collector.erasure import forms
from tracker.collector.horizon import Horizon
from tracker.collector.rollups.adding import add, part, replace_day
from tracker.collector.rollups.tables import rolled, rolled_stale
from tracker.collector.tables import events, heads
from tracker.erasure import named_events
from tracker.events import COMPLIANCE_ERASED
from tracker.queries.figures import DAY_MS
from tracker.queries.source import portions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from tracker.collector.database import Database

CLAIM = "roll-ups"
"""What the process that rolls up claims of the database."""
NAME = "events"
"""Of the position in `rolled`."""
_PART = 20_000
"""How many ids are rolled up in one transaction."""
_SECONDS = 600.0
"""How long it may take: a day of a large client is rolled up again at once."""
_WRITERS_SECONDS = 0.05
"""How often transactions that are storing events are looked at."""


class Roller:
    """Rolls events up, in steps. One at a time works on a database.

    Each step is one transaction, of the sums and of the position: whenever the process ends, each
    event is in the sums once.

    Args:
        database: The events, in PostgreSQL.
        part: How many ids are rolled up in one step.

    Attributes:
        done: Up to which id all events are rolled up, as of the last step.
    """

    def __init__(self, database: Database, part: int = _PART) -> None:
        self._database = database
        self._part = part
        self._horizon = Horizon(database)
        self.done = 0
        self._idle = False

    @property
    def behind(self) -> int:
        """How many ids of events are settled and not rolled up, as of the last step."""
        return max(0, self._horizon.settled - self.done)

    def step(self) -> float | None:
        """Do what is next, and return for how long to pause then; None if there is nothing to do.

        Raises:
            StorageError: if the database failed.
        """
        if self._idle:
            if not self._horizon.look():
                return _WRITERS_SECONDS
            if self._horizon.settled <= self.done:
                return None
        with self._database.writing(CLAIM, _SECONDS) as connection:
            before = done = position(connection) or 0
            replaced = _replace_stale_day(connection, before)
            if not replaced and before < self._horizon.settled:
                done = min(before + self._part, self._horizon.settled)
                _add(connection, before, done)
        self._idle = not replaced and done == before
        self.done = done
        return 0.0


def _add(connection: Connection, before: int, through: int) -> None:
    add(connection, part(events.c.id > before, events.c.id <= through))
    _note_erasures(connection, before, through)
    at = {"position": through}
    query = insert(rolled).values(name=NAME, **at)
    connection.execute(query.on_conflict_do_update(index_elements=["name"], set_=at))


def position(connection: Connection) -> int | None:
    """Return up to which id events are rolled up; None if none are."""
    query = select(rolled.c.position).where(rolled.c.name == NAME)
    return connection.execute(query).scalar()


def _note_erasures(connection: Connection, before: int, through: int) -> None:
    """Note the days that erasures among new events have changed."""
    erasures = connection.execute(
        select(events.c.client_id, events.c.data).where(
            events.c.id > before, events.c.id <= through, events.c.type == COMPLIANCE_ERASED
        )
    ).all()
    for client_id, data in erasures:
        for some in portions(named_events(data)):
            event = events.c
            known = event.event_id.in_(forms(some))
            mine = (event.client_id == client_id, known, event.id <= before)
            times = connection.execute(select(event.timestamp_ms).where(*mine)).scalars()
            _note_stale(connection, client_id, {max(time // DAY_MS, -1) for time in times})


def _note_stale(connection: Connection, client_id: str, days: Iterable[int]) -> None:
    rows: list[dict[str, Any]] = [{"client_id": client_id, "day": day} for day in sorted(days)]
    if rows:
        connection.execute(insert(rolled_stale).on_conflict_do_nothing(), rows)


def _replace_stale_day(connection: Connection, through: int) -> bool:
    """Roll up again the first day that needs it; return False if none does."""
    row = connection.execute(select(rolled_stale).limit(1)).first()
    if row is None:
        return False
    if not _is_pruned(connection, row.client_id, row.day):
        replace_day(connection, row.client_id, row.day, through)
    table = rolled_stale
    mine = (table.c.client_id == row.client_id, table.c.day == row.day)
    connection.execute(table.delete().where(*mine))
    return True


def _is_pruned(connection: Connection, client_id: str, day: int) -> bool:
    """Return True if events of a day may have been deleted by age: its sums have to stay."""
    query = select(func.max(heads.c.pruned_before_ms)).where(heads.c.client_id == client_id)
    return (connection.execute(query).scalar() or 0) > day * DAY_MS

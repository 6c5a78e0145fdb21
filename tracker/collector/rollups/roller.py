"""`Roller`: adds what arrives to the roll-ups, part by part, in the order of arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from tracker import clock
from tracker.collector.erasure import forms
from tracker.collector.horizon import Horizon
from tracker.collector.rollups import told
from tracker.collector.rollups.adding import add, part, replace_day
from tracker.collector.rollups.position import SUMS, move, position
from tracker.collector.rollups.tables import rolled_stale
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
_PART = 20_000
"""How many ids are rolled up in one transaction."""
_SECONDS = 600.0
"""How long it may take: a day of a large client is rolled up again at once."""
_GONE_SECONDS = 600.0
"""How often sessions without events are looked for."""
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
        self._pruned: dict[str, int] = {}
        self._gone: set[tuple[str, int]] = set()
        self._look_at = 0.0

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
            if self._horizon.settled <= self.done and not self._finds_gone():
                return None
        settled = self._horizon.settled
        with self._database.writing(CLAIM, _SECONDS) as connection:
            steps = [each(connection, settled, self._part) for each in (_roll_on, told.roll_on)]
            removed = self._remove_gone(connection)
        self._idle = not removed and not any(is_going_on for _, is_going_on in steps)
        self.done = min(done for done, _ in steps)
        return 0.0

    def _finds_gone(self) -> bool:
        """Return whether sessions may have gone since it was last asked, now and then."""
        if clock.monotonic() < self._look_at:
            return False
        self._look_at = clock.monotonic() + _GONE_SECONDS
        with self._database.reading() as connection:
            pruned = told.pruned(connection)
        self._gone |= {each for each in pruned.items() if each not in self._pruned.items()}
        self._pruned = pruned
        return bool(self._gone)

    def _remove_gone(self, connection: Connection) -> bool:
        if not self._gone:
            return False
        client_id, before_ms = next(iter(self._gone))
        if not told.remove_gone(connection, client_id, before_ms):
            self._gone.remove((client_id, before_ms))
        return True


def _roll_on(connection: Connection, settled: int, size: int) -> tuple[int, bool]:
    """Add to the sums what is next: return how far it is done, and whether there was anything."""
    before = position(connection) or 0
    if _replace_stale_day(connection, before):
        return before, True
    if before >= settled:
        return before, False
    through = min(before + size, settled)
    add(connection, part(events.c.id > before, events.c.id <= through))
    _note_erasures(connection, before, through)
    move(connection, SUMS, through)
    return through, True


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
    before_ms = connection.execute(query).scalar() or 0  # 0 if none were, not even before 1970
    return before_ms > max(day * DAY_MS, 0)

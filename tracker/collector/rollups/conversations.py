"""Which conversations to look at, from roll-ups: so few that each is then read from its events.

Only the order of beginnings has to be right here, and no conversation that is wanted may be
missing: what is shown of one, and whether it matches, its own events tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy import Text, func, literal, select

from tracker.collector.rollups.coverage import close
from tracker.collector.rollups.position import CONVERSATIONS
from tracker.collector.rollups.tables import rolled_conversations
from tracker.collector.rollups.told import hash_of
from tracker.collector.tables import events_of, heads
from tracker.queries.filters import EVERYTHING
from tracker.queries.newest import CHUNK, Begun, Window, chunks, conditions, windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause

    from tracker.queries.filters import Filters

_ROW = rolled_conversations.c


def look(
    connection: Connection, client_id: str, wanted: Filters, status: str | None
) -> Look | None:
    """Return the look at a client's conversations; None if the events have to be gone through.

    That is where there are no roll-ups, or they tell nothing of what is wanted; where many events
    are not rolled up yet; and where an erasure is not.
    """
    rest = wanted.without("agent_id", "user_id", "since_ms", "until_ms", "session_id")
    tells = status is not None or rest == EVERYTHING or rest != wanted
    if connection.dialect.name != "postgresql" or not tells:
        return None
    position = close(connection, client_id, CONVERSATIONS)
    stale = select(_ROW.session_id).where(_ROW.client_id == client_id, _ROW.stale)
    if position is None or connection.execute(stale.limit(1)).first() is not None:
        return None
    return Look(connection, client_id, wanted, status, position, rest)


@dataclass(frozen=True)
class Look:
    """A look at a client's conversations, the one that began last first.

    Attributes:
        connection: A connection to the database.
        client_id: The client.
        wanted: Which conversations; see `queries.conversations.conversation_page`.
        status: Only those with this status; None for all.
        position: All events up to this id are rolled up.
        rest: The part of `wanted` that roll-ups do not tell.
    """

    connection: Connection
    client_id: str
    wanted: Filters
    status: str | None
    position: int
    rest: Filters

    def windows(self, before: int | None, limit: int) -> Iterator[Window]:
        """Yield the sessions that may be wanted, as `queries.newest.windows` does."""
        lowest, end, size = self._untold(), before, min(limit + 1, CHUNK)
        waiting = [each for each in self._new_wanted() if each.position >= lowest]
        while size:
            found = self._rolled(lowest, end, size)
            start = found[-1].position if len(found) == size else lowest
            known = [each for each in found if each.session_id not in self._new]
            new = [each for each in waiting if _is_between(each.position, start, end)]
            is_last = len(found) < size and lowest == 0
            some = sorted([*self._matching(known), *new], reverse=True)
            yield Window(some, None if is_last else start)
            end, size = start, CHUNK if len(found) == size else 0
        if lowest > 0:  # what was deleted by age is not taken out of the roll-ups
            end = lowest if before is None else min(before, lowest)
            yield from windows(self.connection, self._events, self.wanted, end, to_the_end=False)

    @cached_property
    def _events(self) -> FromClause:
        return events_of(self.client_id)

    def _untold(self) -> int:
        """Return the position below which all sessions began of which events may be deleted."""
        mine = (heads.c.client_id == self.client_id, heads.c.pruned_before_ms > 0)
        before_ms = self.connection.execute(
            select(func.max(heads.c.pruned_before_ms)).where(*mine)
        ).scalar()
        if before_ms is None:
            return 0
        old = (_ROW.client_id == self.client_id, _ROW.received_ms < before_ms)
        last = self.connection.execute(select(func.max(_ROW.last_id)).where(*old)).scalar()
        return 0 if last is None else last + 1

    def _rolled(self, lowest: int, before: int | None, size: int) -> list[Begun]:
        """Return the newest sessions that began between two positions, and match as rolled up."""
        query = select(_ROW.first_id, _ROW.session_id).where(
            *self._conditions(), _ROW.first_id >= lowest
        )
        if before is not None:
            query = query.where(_ROW.first_id < before)
        query = query.order_by(_ROW.first_id.desc()).limit(size)
        return [Begun(*row) for row in self.connection.execute(query)]

    def _conditions(self) -> list[ColumnElement[bool]]:
        wanted = self.wanted
        found = [_ROW.client_id == self.client_id, _ROW.spoken]
        if self.status is not None:
            found.append(_ROW.status == self.status)
        if wanted.agent_id is not None:
            found.append(_ROW.agent_id == wanted.agent_id)
        if wanted.user_id is not None:
            found.append(_ROW.user_hash == hash_of(literal(wanted.user_id, Text())))
        if wanted.session_id is not None:
            found.append(_ROW.session_id == wanted.session_id)
        if wanted.since_ms is not None:
            found.append(_ROW.started_ms >= wanted.since_ms)
        if wanted.until_ms is not None:
            found.append(_ROW.started_ms < wanted.until_ms)
        return found

    def _matching(self, sessions: Sequence[Begun]) -> Sequence[Begun]:
        """Return those of some sessions that have an event that matches the rest."""
        if self.rest == EVERYTHING or not sessions:
            return sessions
        event = self._events.c
        within = event.session_id.in_([each.session_id for each in sessions])
        query = select(event.session_id).distinct()
        query = query.where(within, *self.rest.conditions(self._events))
        names = set(self.connection.execute(query).scalars())
        return [each for each in sessions if each.session_id in names]

    @cached_property
    def _new(self) -> set[str]:
        """The sessions with events that are not rolled up."""
        event = self._events.c
        query = select(event.session_id).distinct()
        query = query.where(event.position > self.position, event.session_id.is_not(None))
        return set(self.connection.execute(query).scalars())

    def _new_wanted(self) -> Iterator[Begun]:
        """Yield those of them that may be wanted."""
        event = self._events.c
        query = select(func.min(event.position), event.session_id).group_by(event.session_id)
        for condition in conditions(self._events, self.wanted):
            query = query.having(func.bool_or(condition))
        for some in chunks(sorted(self._new)):
            rows = self.connection.execute(query.where(event.session_id.in_(some)))
            yield from (Begun(*row) for row in rows)


def _is_between(position: int, start: int, end: int | None) -> bool:
    return position >= start and (end is None or position < end)

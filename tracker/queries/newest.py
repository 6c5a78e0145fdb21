"""Sessions, the one that began last first, found window by window from the newest event back.

So the newest ones are found without a look at the others, however many there are.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import and_, case, func, literal, or_, select

from tracker import canonical
from tracker.queries.filters import EVERYTHING
from tracker.queries.slices import Rests
from tracker.queries.source import (
    EVENTS,
    by_position,
    place_before,
    places,
    places_of_period,
    unindexed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause, Select

    from tracker.queries.filters import Filters

T = TypeVar("T")

FIRST_ROWS = 2_000
_GROWTH = 4
_MOST_ROWS = 16_000
_WINDOWS_BEFORE_ALL = 3

CHUNK = 200
"""Maximum number of sessions per query; SQLite before 3.32 binds at most 999 values."""


class Begun(NamedTuple):
    """A session, and the position of its first event."""

    position: int
    session_id: str


class Window(NamedTuple):
    """What was found between two positions.

    Attributes:
        sessions: Those that began there and may be wanted, the one that began last first.
        lowest: The lowest position looked at; None if no session that is wanted begins below it.
    """

    sessions: list[Begun]
    lowest: int | None


def windows(
    connection: Connection,
    events: FromClause,
    wanted: Filters = EVERYTHING,
    before: int | None = None,
    *,
    to_the_end: bool = True,
    rows: int = FIRST_ROWS,
) -> Iterator[Window]:
    """Yield the sessions that may be those of wanted conversations, window by window.

    They are those with an event of the agent, one of the user, and one that matches the rest; those
    that began outside the period are left out as far as the positions of its events tell. No cursor
    is open meanwhile.

    Args:
        connection: A connection to the database.
        events: The table of events.
        wanted: Which conversations; see `conversations.conversation_page`.
        before: Only sessions whose first event has a lower position.
        to_the_end: Whether there is time for all of them: after a few windows, the last one is then
            all the rest, which takes longer than a window but less than all of them.
        rows: Number of events in the first window.
    """
    first, last = places(connection, events)
    if first is None or last is None:
        return
    lowest, highest = places_of_period(connection, events, wanted.since_ms, wanted.until_ms)
    lowest, end = max(first, lowest), min(last, highest) + 1
    end = end if before is None else min(end, before)
    look = _Look(connection, events, conditions(events, wanted), end, at_newest=end > last)
    rests = Rests(connection, events)
    for number in count():
        if end <= lowest:
            return
        if to_the_end and number == _WINDOWS_BEFORE_ALL:
            yield Window(look.all_before(end), None)
            return
        start = max(place_before(connection, events, end, rows), lowest)
        with rests.after_this():
            found = look.between(start, end)
        yield Window(found, start if start > lowest else None)
        end, rows = start, min(rows * _GROWTH, _MOST_ROWS)


def conditions(events: FromClause, wanted: Filters) -> list[ColumnElement[bool]]:
    """Return conditions of which some event of the session must fulfil each."""
    named = ((events.c.agent_id, wanted.agent_id), (events.c.user_id, wanted.user_id))
    found = [column == value for column, value in named if value is not None]
    rest = wanted.without("agent_id", "user_id", "since_ms", "until_ms")
    return found if rest == EVERYTHING else [*found, and_(*rest.conditions(events))]


class _Look:
    """A look at windows, each before the last one.

    Args:
        connection: A connection to the database.
        events: The table of events.
        conditions: Those of which some event of a wanted session fulfils each.
        end: The position before which it begins.
        at_newest: Whether no event is there or after.
    """

    def __init__(
        self,
        connection: Connection,
        events: FromClause,
        conditions: Sequence[ColumnElement[bool]],
        end: int,
        *,
        at_newest: bool,
    ) -> None:
        self._connection = connection
        self._events = events
        self._conditions = conditions
        self._end = end
        # Then what an event fulfils is seen before the session's first event, or there.
        self._is_selective = at_newest and bool(conditions)
        self._waiting: list[Begun] = []
        self._fulfilling: list[set[str]] = [set() for _ in conditions]

    def between(self, start: int, end: int) -> list[Begun]:
        """Return the wanted sessions that began there, the one that began last first."""
        event = self._events.c
        session = unindexed(event.session_id)
        flags = [func.max(case((condition, 1), else_=0)) for condition in self._conditions]
        within = (event.position >= start, event.position < end, *by_position(self._events))
        query = select(session, *flags).where(*within)
        if self._is_selective:
            query = query.where(or_(*self._conditions))
        seen: list[str] = []
        for session_id, *fulfilled in self._connection.execute(query.group_by(session)):
            if session_id is not None:
                seen.append(session_id)
                for names, is_fulfilled in zip(self._fulfilling, fulfilled, strict=True):
                    if is_fulfilled:
                        names.add(session_id)
        if not self._is_selective:
            return self._wanted(seen, start)
        known = {each.session_id for each in self._waiting}
        new = [each for each in seen if self._is_wanted(each) and each not in known]
        waiting = [*self._waiting, *self._wanted(new, 0)]
        self._waiting = [each for each in waiting if each.position < start]
        return sorted((each for each in waiting if each.position >= start), reverse=True)

    def _is_wanted(self, session_id: str) -> bool:
        return all(session_id in names for names in self._fulfilling)

    def _wanted(self, sessions: Sequence[str], start: int) -> list[Begun]:
        """Return the wanted ones of some sessions that have no event before a position."""
        found: list[Begun] = []
        for some in chunks(sessions):
            rows = self._connection.execute(self._extents(some)).all()
            # What was there a moment ago may have been removed.
            begun = [row for row in rows if row[0] is not None and row[0] >= start]
            self._look_after([session_id for _, last, session_id in begun if last >= self._end])
            found += [Begun(first, each) for first, _, each in begun if self._is_wanted(each)]
        return sorted(found, reverse=True)

    def _extents(self, sessions: Sequence[str]) -> Select[Any]:
        """Return the query for the first and the last position of sessions, and for their ids."""
        event = self._events.c
        first, last = func.min(event.position), func.max(event.position)
        # Answered from the index of session ids alone, without reading the rows.
        if self._events is not EVENTS:
            of_these = event.session_id.in_(sessions)
            return select(first, last, event.session_id).where(of_these).group_by(event.session_id)
        # And by two looks for each, since one may have as many events as a robot logs in a year.
        listed = func.json_each(literal(canonical.encode(list(sessions)))).table_valued("value")
        of_this = event.session_id == listed.c.value
        ends = (select(end).where(of_this).scalar_subquery() for end in (first, last))
        return select(*ends, listed.c.value)

    def _look_after(self, sessions: Sequence[str]) -> None:
        """Note what sessions fulfil that have events after the look began."""
        session = self._events.c.session_id
        for condition, names in zip(self._conditions, self._fulfilling, strict=True):
            missing = [each for each in sessions if each not in names]
            if missing:
                query = select(session).where(session.in_(missing), condition)
                names |= set(self._connection.execute(query).scalars())

    def all_before(self, end: int) -> list[Begun]:
        """Return all wanted sessions that began before, the one that began last first."""
        first, session = func.min(self._events.c.position), self._events.c.session_id
        query = select(first, session).where(session.is_not(None))
        for condition in self._conditions:
            query = query.where(session.in_(select(session).where(condition)))
        query = query.group_by(session).having(first < end).order_by(first.desc())
        return [Begun(*row) for row in self._connection.execute(query)]


def chunks(sessions: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Yield sessions in chunks that fit into one query."""
    for start in range(0, len(sessions), size):
        yield sessions[start : start + size]

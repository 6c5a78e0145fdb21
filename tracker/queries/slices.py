"""`Slices` and `Rests`: many events read a few at a time, so that who logs is not held up.

SQLite cannot begin its write-ahead log again while somebody reads an older state of the file: one
read of a million events makes the log of a busy application grow by hundreds of megabytes.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, bindparam, func, select, text

from tracker.clock import monotonic, sleep
from tracker.queries.filters import EVERYTHING
from tracker.queries.source import COLUMNS, EVENTS, places, places_of_period

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause, Select

    from tracker.queries.filters import Filters

_FETCH_ROWS = 1_000
"""Rows fetched at once where one read goes through all events."""
_MOST_BYTES, _MOST_ROWS = 4_000_000, 4_096
"""About how much of the file a slice is, and how many positions: some hundredths of a second."""
_FEWER = 32
"""Slices are so many times smaller while somebody writes."""
_BACK_ROWS = 16_000
"""Positions at once where a list is looked for from the newest event back."""
_SESSION_ROWS = 1_000
"""Events of sessions at once."""
_REST = 4.0
"""How long to rest where somebody writes: so many times as long as the read of the slice took."""
_LEAST_REST = 0.005
_HIGHEST = 2**63 - 1
"""The highest position that SQLite has."""

_START, _STOP = (bindparam(name, type_=BigInteger) for name in ("slice_start", "slice_stop"))


class Slices:
    """The events that match, in slices by their positions.

    Each slice of an outbox is a read of its own, which has ended before its rows are looked at. So
    what is erased or removed meanwhile may be missing, and what is logged meanwhile is. The events
    of a collector, and those of a run, are read in one go.

    Args:
        connection: A connection to the database.
        events: The table of events.
        wanted: Which events.

    Attributes:
        events: The events that match, for the queries of `read`.
        is_sliced: Whether they are read in slices.
    """

    def __init__(
        self, connection: Connection, events: FromClause, wanted: Filters = EVERYTHING
    ) -> None:
        self._connection = connection
        self._wanted = wanted
        self.is_sliced = events is EVENTS and wanted.run_id is None
        self.events = _slice_of(wanted) if self.is_sliced else wanted.of(events)

    def rows(self, query: Select[Any]) -> Iterator[Any]:
        """Yield the rows of a query over `events`, which groups and orders those of each slice."""
        for rows in self.read(query):
            yield from rows

    def read(self, query: Select[Any]) -> Iterator[Sequence[Any]]:
        """Yield the rows of a query over `events`, some at a time, in the order of the slices."""
        if self.is_sliced:
            yield from self._in_slices(query)
        else:
            fetched = {"yield_per": _FETCH_ROWS}
            yield from self._connection.execute(query, execution_options=fetched).partitions()

    def _in_slices(self, query: Select[Any]) -> Iterator[Sequence[Any]]:
        (start, end, rows), rests = self._extent(), Rests(self._connection, EVENTS)
        while start < end:
            # While nobody writes, the slices are the same each time, and so are sums of floats.
            size = max(rows // _FEWER, 1) if rests.are_needed else rows
            stop = min((start // size + 1) * size, end)
            with rests.after_this():
                bound = {_START.key: start, _STOP.key: stop}
                found = self._connection.execute(query, bound).all()
            yield found
            start = self._next(stop)

    def _extent(self) -> tuple[int, int, int]:
        """Return the first position, the one after the last, and how many a slice has."""
        first, last = places(self._connection, EVENTS)
        if first is None or last is None:
            return 0, 0, 1
        pages, page_bytes = (
            _pragma(self._connection, f"page_{name}") for name in ("count", "size")
        )
        stored_bytes = pages * page_bytes
        fitting = _MOST_BYTES * (last - first + 1) // stored_bytes
        lowest, highest = places_of_period(
            self._connection, EVENTS, self._wanted.since_ms, self._wanted.until_ms
        )
        end = min(last, highest, _HIGHEST - 1) + 1
        return max(first, lowest), end, max(min(fitting, _MOST_ROWS), 1)

    def _next(self, start: int) -> int:
        """Return the first position from there on: after a removal, or damage, many may be free."""
        position = EVENTS.c.position
        query = select(func.min(position)).where(position >= start)
        found = self._connection.execute(query).scalar()
        return _HIGHEST if found is None else int(found)


class Rests:
    """Rests between the reads of an outbox that somebody writes to.

    Args:
        connection: A connection to the database.
        events: The table of events; there is no rest from those of a collector.

    Attributes:
        are_needed: Whether somebody wrote during the last read; true until there was one.
    """

    def __init__(self, connection: Connection, events: FromClause) -> None:
        self._connection = connection
        self._has_log = events is EVENTS
        self._seen = self._written()
        self.are_needed = True

    @contextmanager
    def after_this(self) -> Iterator[None]:
        """Rest after what is read within, for longer than it took, if somebody wrote meanwhile."""
        began = monotonic()
        yield
        took, before = monotonic() - began, self._seen
        self._seen = self._written()
        self.are_needed = self._seen != before
        if self.are_needed:
            sleep(max(_REST * took, _LEAST_REST))

    def _written(self) -> int:
        """Return a number that is another one once another connection has written."""
        return _pragma(self._connection, "data_version") if self._has_log else 0


def of_sessions(
    connection: Connection, events: FromClause, query: Select[Any], sessions: Sequence[str]
) -> Iterator[Any]:
    """Yield the rows of a query for the events of some sessions, session by session, in order.

    A session that never ends has any number of events. What is erased or removed meanwhile may be
    missing.

    Args:
        connection: A connection to the database.
        events: The table of events.
        query: The columns to select; `session_id` and `position` must be the first ones.
        sessions: The sessions.
    """
    event = events.c
    query = query.order_by(event.session_id, event.position)
    if events is not EVENTS:
        yield from connection.execute(query.where(event.session_id.in_(sessions)))
        return
    query = query.limit(_SESSION_ROWS)
    left, rests = sorted(sessions), Rests(connection, events)  # as their bytes are ordered
    rows = connection.execute(query.where(event.session_id.in_(left))).all()
    yield from rows
    while len(rows) == _SESSION_ROWS:
        session_id, position, *_ = rows[-1]
        left = left[left.index(session_id) :]
        more = (event.session_id == session_id, event.position > position)
        with rests.after_this():
            rows = connection.execute(query.where(*more)).all()
        yield from rows
        if len(rows) < _SESSION_ROWS:
            left = left[1:]
            with rests.after_this():
                rows = connection.execute(query.where(event.session_id.in_(left))).all()
            yield from rows


def newest_first(
    connection: Connection, events: FromClause, before: int | None = None
) -> Iterator[list[ColumnElement[bool]]]:
    """Yield conditions, each for some of the events, the newest first; rests after each is used.

    Args:
        connection: A connection to the database.
        events: The table of events; those of a collector come all at once.
        before: Only events with a lower position.
    """
    position = events.c.position
    if events is not EVENTS:
        yield [] if before is None else [position < before]
        return
    first, last = places(connection, events)
    if first is None or last is None:
        return
    end, rests = min(last, _HIGHEST - 1) + 1, Rests(connection, events)
    end = end if before is None else min(end, before)
    while end > first:
        start = max(end - _BACK_ROWS, first)
        with rests.after_this():
            yield [position >= start, position < end]
        found = connection.execute(select(func.max(position)).where(position < start)).scalar()
        end = first if found is None else int(found) + 1


def _pragma(connection: Connection, name: str) -> int:
    found: int = connection.execute(text(f"PRAGMA {name}")).scalar_one()
    return found


def _slice_of(wanted: Filters) -> FromClause:
    """Return the events of an outbox that match, of those with the positions of a slice."""
    events = EVENTS.alias("stored")  # whose other ways to find some are not to be used
    columns = [events.c[name].label(name) for name in COLUMNS]
    within = (events.c.position >= _START, events.c.position < _STOP)
    return select(*columns).where(*within, *wanted.conditions(events)).subquery("matching")

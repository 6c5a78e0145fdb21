"""Which stored events are about a user, in an outbox or among a collector's of one client."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select

from tracker import canonical
from tracker.erasure import ERASED
from tracker.events import COMPLIANCE_ERASED, OTEL, SCORE_RECORDED, SPAN_RECORDED, TOOL_CALLED
from tracker.otel import names
from tracker.queries.source import in_spans_of, portions, with_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import ColumnElement, Connection, FromClause, Select

_SPANS = frozenset(
    (SPAN_RECORDED, "function.observed", TOOL_CALLED, "otel.span", "otel.span_started")
)
"""Types of events that are spans themselves."""
_TOGETHER = 100
"""Rows with their data, up to some MiB each, that are in memory at a time."""


def find(connection: Connection, events: FromClause, user_id: str) -> list[str]:
    """Return the ids of the stored events about a user that are not erased yet.

    These are the events that name the user, also those of OpenTelemetry that do so among their
    attributes only; and those that name no user but a conversation in which another event names
    the user. Of their traces, what names nobody else as well: all of it if no other user occurs in
    the trace; otherwise the spans around the user's events, and all that is inside a span of the
    user's and not in one of another's. A conversation that names nobody belongs to the user if
    nobody else occurs in its traces. Scores belong to the event or trace that they judge. Reads the
    whole table, without making anybody wait.

    Args:
        connection: A connection to the database.
        events: The table of events.
        user_id: The user.

    Returns:
        What was found by way of others comes before these, so that a call that is cut off leaves
        the way to the rest.
    """
    return _Search(connection, events, user_id).found()


def is_known(connection: Connection, events: FromClause, user_id: str) -> bool:
    """Return True if any event names the user, erased or not."""
    search = _Search(connection, events, user_id)
    named = select(events.c.event_id).where(events.c.user_id == user_id).limit(1)
    return connection.execute(named).first() is not None or any(search.among_attributes())


class _Row(NamedTuple):
    """An event, as far as it matters whom it is about."""

    event_id: str
    type: str
    user_id: str | None
    session_id: str | None
    trace: str | None
    is_erased: bool


class _Place(NamedTuple):
    """The ids that an event's `trace` has."""

    trace_id: str | None
    span_id: str | None
    parent_span_id: str | None


class _Search:
    """Looks for a user's events, on and on from those that it has found."""

    def __init__(self, connection: Connection, events: FromClause, user_id: str) -> None:
        self._connection = connection
        self._events = events
        self._user_id = user_id
        self._layers: list[list[str]] = []
        self._known: set[str] = set()
        self._named: set[str] = set()  # those that name the user or a conversation of the user
        self._whole: set[str] = set()  # the traces of nobody else
        self._shared: dict[str, bool] = {}  # by session: whether it names another user

    def found(self) -> list[str]:
        """Return the ids of all events about the user."""
        named = self._read(self._events.c.user_id == self._user_id)
        new = self._add([*named, *self.among_attributes()], named=True)
        sessions = {row.session_id for row in new if row.session_id is not None}
        while new:
            new += self._add(self._of_sessions(sessions), named=True)
            around = list(self._around(new))
            sessions = {row.session_id for row in around if row.session_id is not None}
            sessions = {each for each in sessions if self._is_alone(each)}
            new = self._add(around)
        self._add(self._scores())
        return [*chain.from_iterable(reversed(self._layers))]

    def among_attributes(self) -> Iterator[_Row]:
        """Yield what came over OpenTelemetry and names the user among its attributes only."""
        column = self._events.c
        text = canonical.encode(self._user_id)[1:-1]
        rows = self._read_with_data(
            column.type.in_(sorted(OTEL)),
            column.user_id.is_distinct_from(self._user_id),
            column.data.contains(text, autoescape=True),
        )
        return (row for row, data in rows if _names(data, self._user_id))

    def _add(self, rows: Iterable[_Row], *, named: bool = False) -> list[_Row]:
        """Return those of the rows that are new; they are known from now on."""
        new = list({row.event_id: row for row in rows if row.event_id not in self._known}.values())
        ids = [row.event_id for row in new]
        self._known.update(ids)
        if named:
            self._named.update(ids)
        self._layers.append(ids)
        return new

    def _read(self, *where: ColumnElement[bool]) -> Iterator[_Row]:
        """Yield the events that are not erased."""
        rows = self._connection.execute(self._select(*where, ~self._erased))
        return (_Row(*row) for row in rows)

    def _read_with_data(self, *where: ColumnElement[bool]) -> Iterator[tuple[_Row, dict[str, Any]]]:
        query = self._select(*where, ~self._erased).add_columns(self._events.c.data)
        for *row, data in self._connection.execute(query.execution_options(yield_per=_TOGETHER)):
            yield _Row(*row), _decoded(data)

    def _select(self, *where: ColumnElement[bool]) -> Select[Any]:
        column = self._events.c
        columns = (column.event_id, column.type, column.user_id, column.session_id, column.trace)
        wanted = (*where, column.type != COMPLIANCE_ERASED)
        return select(*columns, self._erased).where(*wanted).order_by(column.position)

    @property
    def _erased(self) -> ColumnElement[bool]:
        return func.rtrim(self._events.c.data) == ERASED

    # --- conversations ----------------------------------------------------------------------------

    def _of_sessions(self, sessions: Iterable[str]) -> Iterator[_Row]:
        """Yield the events of conversations that name no user."""
        column = self._events.c
        for some in portions(sorted(sessions)):
            yield from self._read(column.user_id.is_(None), column.session_id.in_(some))

    def _is_shared(self, session_id: str) -> bool:
        """Return True if a conversation has events of another user."""
        if session_id not in self._shared:
            self._shared[session_id] = self._has_others(self._events.c.session_id == session_id)
        return self._shared[session_id]

    def _is_alone(self, session_id: str) -> bool:
        """Return True if no other user occurs in a conversation or in its traces."""
        if self._is_shared(session_id):
            return False
        rows = self._read(self._events.c.session_id == session_id)
        return not any(
            self._has_others(*in_spans_of(self._events, trace_id))
            for trace_id in self._traces(rows)
        )

    def _has_others(self, *where: ColumnElement[bool]) -> bool:
        users = self._events.c.user_id
        others = self._select(*where, users != self._user_id, ~self._erased).limit(1)
        return self._connection.execute(others).first() is not None

    # --- traces -----------------------------------------------------------------------------------

    def _around(self, rows: Iterable[_Row]) -> Iterator[_Row]:
        """Yield what is in the traces of these events, as far as it is about the user as well."""
        for trace_id in self._traces(rows):
            if trace_id not in self._whole:
                yield from self._of_trace(trace_id)

    def _traces(self, rows: Iterable[_Row]) -> list[str]:
        """Return the traces of these events that have spans, and are no mere turns."""
        ids = {_place(row.trace).trace_id for row in rows}
        return with_spans(self._connection, self._events, [each for each in ids if each])

    def _of_trace(self, trace_id: str) -> list[_Row]:
        where = in_spans_of(self._events, trace_id)
        # Erased spans too, for what is around and inside of them.
        rows = [_Row(*row) for row in self._connection.execute(self._select(*where))]
        left = [row for row in rows if not row.is_erased]
        free = [row for row in left if row.user_id is None and not self._is_others(row)]
        if not any(self._is_others(row) for row in left):
            self._whole.add(trace_id)
            return free
        is_about = _spans_about(rows, self._named, self._is_others)
        return [row for row in free if is_about(row)]

    def _is_others(self, row: _Row) -> bool:
        """Return True if an event names another user, or a conversation of one."""
        if row.event_id in self._named or row.is_erased:
            return False
        if row.user_id is not None:
            return True
        return row.session_id is not None and self._is_shared(row.session_id)

    def _scores(self) -> Iterator[_Row]:
        """Yield the scores of what was found that name nobody themselves."""
        column = self._events.c
        rows = self._read_with_data(
            column.type == SCORE_RECORDED, column.user_id.is_(None), column.session_id.is_(None)
        )
        return (
            row
            for row, judged in rows
            if judged.get("target_event_id") in self._known
            or judged.get("target_trace_id") in self._whole
        )


def _spans_about(
    rows: list[_Row], named: set[str], is_others: Callable[[_Row], bool]
) -> Callable[[_Row], bool]:
    """Return what tells, in a trace of several users, whether an event is about this one.

    Args:
        rows: All events of the trace.
        named: Ids of the events that name the user.
        is_others: Tells whether an event names somebody else.
    """
    parents: dict[str | None, str | None] = {}
    owned: dict[str | None, bool] = {}  # by span that names somebody: whether that is the user
    around: set[str | None] = set()
    for row in rows:
        place = _place(row.trace)
        if place.parent_span_id is not None:
            parents[place.span_id] = place.parent_span_id
        if row.type in _SPANS and (row.event_id in named or is_others(row)):
            owned[place.span_id] = row.event_id in named or owned.get(place.span_id, False)
    for row in rows:
        if row.event_id in named:
            around.update(_up(_place(row.trace).span_id, parents))

    def is_about(row: _Row) -> bool:
        span_id = _place(row.trace).span_id
        if row.type in _SPANS and span_id in around:
            return True
        return next((owned[each] for each in _up(span_id, parents) if each in owned), False)

    return is_about


def _up(span_id: str | None, parents: dict[str | None, str | None]) -> Iterator[str]:
    """Yield a span's id and those of the spans that it is in, the innermost first."""
    seen: set[str] = set()
    while span_id is not None and span_id not in seen:
        seen.add(span_id)
        yield span_id
        span_id = parents.get(span_id)


def _names(data: object, user_id: str) -> bool:
    """Return True if attributes in the data of an event name a user; numbers are ids as well."""
    if isinstance(data, list):
        return any(_names(each, user_id) for each in data)
    if not isinstance(data, dict):
        return False
    values = (data.get(name) for name in names.USER)
    return any(str(value) == user_id for value in values if isinstance(value, (str, int))) or any(
        _names(value, user_id) for value in data.values()
    )


def _place(trace: object) -> _Place:
    found = _decoded(trace)
    values = (found.get(name) for name in _Place._fields)
    return _Place(*(value if isinstance(value, str) else None for value in values))


def _decoded(text: object) -> dict[str, Any]:
    """Return a JSON object; an empty one for anything else, since rows can be damaged."""
    try:
        value = canonical.decode(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

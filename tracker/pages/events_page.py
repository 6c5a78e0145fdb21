"""The events as they are stored: a list to filter, and one of them with its proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select
from starlette.exceptions import HTTPException

from tracker import canonical
from tracker.pages.view import Page
from tracker.pages.words import readable_json
from tracker.queries.filters import EVERYTHING
from tracker.queries.slices import newest_first

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.pages.view import View

_PAGE = 50
_BEGINNING = 200
_PART = 20_000
"""Characters of an event's data on one page."""
_COLUMNS = ("seq", "event_id", "type", "timestamp_ms", "agent_id", "session_id", "user_id",
            "context", "trace", "data")  # fmt: skip


class Stored(NamedTuple):
    """An event as it is stored; in a damaged row, values may be of any type."""

    seq: int
    event_id: str
    type: str
    timestamp_ms: int
    agent_id: str | None
    session_id: str | None
    user_id: str | None
    context: str | None
    trace: str | None
    data: str


class Line(NamedTuple):
    """An event of the list, with the beginning of its data."""

    seq: int
    event_id: str
    type: str
    timestamp_ms: int
    agent_id: str | None
    session_id: str | None
    data: str


class _Listed(NamedTuple):
    rows: list[Line]
    next: int | None


def events_page(view: View) -> Page:
    """Return the list, the newest first."""
    state = view.one_of("state", tuple(view.source.states), "")
    before = view.position("before")
    key = [view.text(name) for name in ("type", "agent", "user", "session")]
    read = _listed(view, state, before)
    found: _Listed | None
    if state or any(key) or view.filters() != EVERYTHING:
        found = view.part("events", read, state, before, *key).value
    else:  # the newest are found at once
        found = read(view.connection)
    return Page("events.html", "Events", {
        "ready": found is not None,
        "rows": [] if found is None else found.rows,
        "next": None if found is None else found.next,
        "state": state,
        "states": view.source.states,
        "is_first": before is None,
    })  # fmt: skip


def _listed(view: View, state: str, before: int | None) -> Callable[[Connection], _Listed]:
    """Return the query for a page of events; there is no index for most of the filters."""
    wanted = view.filters(
        agent_id=view.text("agent"),
        user_id=view.text("user"),
        session_id=view.text("session"),
        type=view.text("type"),
    )
    events = view.source.events
    column = events.c
    columns = [column[name] for name in Line._fields[:-1]]
    query = select(*columns, func.substr(column.data, 1, _BEGINNING), column.position)
    query = query.where(*wanted.conditions(events))
    if state:
        query = query.where(view.source.in_state(state))

    def read(connection: Connection) -> _Listed:
        found: list[Any] = []
        for some in newest_first(connection, events, before):
            most = _PAGE + 1 - len(found)
            ordered = query.where(*some).order_by(column.position.desc())
            found += connection.execute(ordered.limit(most)).all()
            if len(found) > _PAGE:
                break
        rows = [Line(*row[:-1]) for row in found[:_PAGE]]
        return _Listed(rows, found[_PAGE - 1].position if len(found) > _PAGE else None)

    return read


def event_page(view: View) -> Page:
    """Return one event, with what proves it.

    Raises:
        HTTPException: if it is not stored.
    """
    found = _find(view)
    data = readable_json(_decoded(found.data))
    parts = max(-(-len(data) // _PART), 1)
    part = min(max(view.position("part") or 1, 1), parts)
    return Page("event.html", "Event", {
        "event": found,
        "data": data[(part - 1) * _PART : part * _PART],
        "part": part,
        "parts": parts,
        "context": _decoded(found.context),
        "trace": _decoded(found.trace),
        "proof": view.source.proof(view.connection, found.event_id),
    })  # fmt: skip


def as_json(view: View) -> dict[str, Any]:
    """Return an event as JSON.

    Raises:
        HTTPException: if it is not stored.
    """
    found = _find(view)
    decoded = {name: _decoded(getattr(found, name)) for name in ("context", "trace", "data")}
    return {**found._asdict(), **decoded}


def _find(view: View) -> Stored:
    name = view.text("id")
    column = view.source.events.c
    row = view.connection.execute(
        select(*(column[each] for each in _COLUMNS)).where(column.event_id == name).limit(1)
    ).first()
    if row is None:
        raise HTTPException(404, "There is no such event here. It may have been pruned.")
    return Stored(*row)


def _decoded(stored: Any) -> Any:
    """Return the value of a JSON column; its text if it is damaged."""
    if stored is None:
        return None
    try:
        return canonical.decode(stored)
    except ValueError:
        return str(stored)

"""What the user said first in each of some conversations, for lists of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, or_, select

from tracker import canonical
from tracker.events import MESSAGE_LOGGED, OTEL_SPAN
from tracker.queries.content import readable
from tracker.queries.newest import chunks
from tracker.queries.source import EVENTS, text_field, unindexed
from tracker.queries.spoken import question, spoken

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, FromClause

MOST_CHARACTERS = 160
_SPANS_AT_ONCE = 5


@dataclass(frozen=True)
class FirstSaid:
    """What the user said first in a conversation, as far as it is stored.

    Attributes:
        text: Its first 160 characters, in one line; None if content was not captured, or was
            erased.
        erased: Whether it was erased.
    """

    text: str | None
    erased: bool = False


def first_said(
    connection: Connection, sessions: Sequence[str], events: FromClause = EVENTS
) -> dict[str, FirstSaid]:
    """Return what the user said first in each of some conversations, by their ids.

    It is the first message of the user; if none is logged, what spans tell of. Nobody can tell who
    said a message that was erased: it counts if the user's other messages are not stored. A
    conversation in which the user said nothing is not in the answer.
    """
    found: dict[str, FirstSaid] = {}
    for some in chunks(sessions):
        found |= _logged(connection, some, events)
        silent = [each for each in some if each not in found or found[each].erased]
        found |= _told(connection, silent, events)
    return found


def _logged(
    connection: Connection, sessions: Sequence[str], events: FromClause
) -> dict[str, FirstSaid]:
    event, role = events.c, text_field(events, "role")
    erased = func.rtrim(event.data) == canonical.ERASED  # a collector's are padded
    first = (
        select(func.min(event.position))
        .where(
            event.session_id.in_(sessions),
            unindexed(event.type) == MESSAGE_LOGGED,  # the sessions' index finds fewer rows
            or_(role == "user", erased),
        )
        .group_by(event.session_id, erased)
    )
    rows = connection.execute(
        select(event.session_id, event.data)
        .where(event.session_id.in_(sessions), event.position.in_(first))
        .order_by(event.position.desc())
    )
    found: dict[str, FirstSaid] = {}
    for session_id, stored in rows:
        said = _said(stored)
        if session_id not in found or not said.erased:
            found[session_id] = said
    return found


def _said(stored: object) -> FirstSaid:
    data = _object(stored)
    if data.get("erased") is True:
        return FirstSaid(None, erased=True)
    return FirstSaid(_beginning(readable(data.get("content"))))


def _told(
    connection: Connection, sessions: Sequence[str], events: FromClause
) -> dict[str, FirstSaid]:
    """Return what spans tell of the questions in some conversations."""
    event = events.c
    named = connection.execute(
        select(event.session_id)
        .where(event.session_id.in_(sessions), unindexed(event.type) == OTEL_SPAN)
        .group_by(event.session_id)
    ).scalars()
    found = {}
    for session_id in list(named):
        told = spoken(connection, session_id, events)
        text = _asked(connection, session_id, told.positions, events) if told.asked else None
        if text is not None:
            found[session_id] = FirstSaid(text)
    return found


def _asked(
    connection: Connection, session_id: str, positions: Sequence[int], events: FromClause
) -> str | None:
    event = events.c
    for some in chunks(positions, _SPANS_AT_ONCE):
        rows = connection.execute(
            select(event.data)
            .where(event.session_id == session_id, event.position.in_(some))
            .order_by(event.position)
        ).scalars()
        for stored in rows:
            given = _object(stored).get("attributes")
            asked = _beginning(question(given)) if isinstance(given, dict) else None
            if asked is not None:
                return asked
    return None


def _beginning(text: str | None) -> str | None:
    # Four times as much may be white space.
    return None if text is None else " ".join(text[: 4 * MOST_CHARACTERS].split())[:MOST_CHARACTERS]


def _object(stored: object) -> dict[str, Any]:
    """Return an event's data; nothing if the row is damaged."""
    try:
        data = canonical.decode(stored)  # type: ignore[arg-type]  # a damaged row has any type
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}

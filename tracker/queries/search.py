"""Text search over the messages of all conversations, without an index: from the newest back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import or_, select

from tracker import clock, validation
from tracker.events import MESSAGE_LOGGED, OTEL_SPAN
from tracker.queries.filters import EVERYTHING
from tracker.queries.history import entry_of
from tracker.queries.slices import Rests
from tracker.queries.source import EVENTS, by_position, contains, place_before, places
from tracker.queries.source import places_of_period as period
from tracker.queries.spoken import spoken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, FromClause

    from tracker.queries.filters import Filters

MOST_CHARACTERS = 240
"""Of an excerpt."""
_BEFORE = 60
_AT_ONCE = 50
_FIRST_ROWS = 2_000
_MOST_ROWS = 16_000
_PLAIN = re.compile(r"[A-Za-z0-9 .,:;!?_-]+")
"""What no encoder of JSON escapes, be it text in the attribute of a span."""
_VERBATIM = re.compile(rf"(?:{_PLAIN.pattern}|[\u3000-\u9fff\uac00-\ud7a3])+")
"""What canonical JSON does not escape, and has no upper and lower case beyond ASCII."""


@dataclass(frozen=True)
class Found:
    """A message that contains the text.

    Attributes:
        position: Its place in the order of logging.
        seq: Its number in its outbox.
        event_id: Its id.
        session_id: The conversation, or None.
        timestamp_ms: Time when it was logged, Unix milliseconds.
        type: ``"message.logged"``, or ``"otel.span"`` for a model call that OpenTelemetry recorded.
        role: Who said it: ``"user"``, ``"agent"`` or ``"system"``.
        excerpt: At most 240 characters around the first place, in one line.
    """

    position: int
    seq: int
    event_id: str
    session_id: str | None
    timestamp_ms: int
    type: str
    role: str | None
    excerpt: str


class Matches(NamedTuple):
    """A page of messages that contain a text.

    Attributes:
        found: The messages, newest first.
        next: The `before` of the next page; None if nothing is left.
        looked_back_to_ms: If the look ended for want of time, how far back it went: a time, Unix
            milliseconds.
    """

    found: list[Found]
    next: int | None
    looked_back_to_ms: int | None = None


def search(
    connection: Connection,
    text: str,
    wanted: Filters = EVERYTHING,
    limit: int = 50,
    before: int | None = None,
    events: FromClause = EVENTS,
    *,
    seconds: float | None = None,
) -> Matches:
    """Return the newest messages that contain a text, in upper or lower case.

    They are what histories have: messages, and what spans tell where none are logged.

    Args:
        connection: A connection to the database.
        text: The text, at least one character.
        wanted: Which events.
        limit: Maximum number of messages.
        before: The `next` of the previous page; None for the first page.
        events: The table of events.
        seconds: As in `conversations.conversation_page`.

    Raises:
        ValidationError: if an argument is not allowed.
    """
    text = validation.check_id("text", text)
    limit = validation.check_count("limit", limit)
    look = _Look(connection, events, text)
    found: list[Found] = []
    ends_at = None if seconds is None else clock.monotonic() + seconds
    for position, timestamp_ms, row in look.candidates(wanted, before):
        match = None if row is None else look.match(position, row)
        if match is not None and len(found) < limit:
            found.append(match)
        elif match is not None:
            return Matches(found, found[-1].position if found else None)
        if ends_at is not None and clock.monotonic() >= ends_at:
            if found and len(found) == limit:
                return Matches(found, found[-1].position)
            return Matches(found, position, timestamp_ms)
    return Matches(found, None)


class _Look:
    """A look for a text.

    Args:
        connection: A connection to the database.
        events: The table of events.
        text: The text.
    """

    def __init__(self, connection: Connection, events: FromClause, text: str) -> None:
        self._connection = connection
        self._events = events
        self._folded = text.lower()
        self._text = text
        self._transcripts: dict[str, frozenset[int]] = {}
        self._asked: dict[str, bool] = {}
        self._rests = Rests(connection, events)

    def candidates(
        self, wanted: Filters, before: int | None
    ) -> Iterator[tuple[int, int | None, Any]]:
        """Yield position, time and row of messages that may contain the text, newest first.

        Now and then there is no row: all from that position on has been looked at.
        """
        first, last = places(self._connection, self._events)
        if first is None or last is None:
            return
        lowest, highest = period(self._connection, self._events, wanted.since_ms, wanted.until_ms)
        lowest, end = max(first, lowest), min(last, highest) + 1
        end = end if before is None else min(end, before)
        rows = _FIRST_ROWS
        while end > lowest:
            start = max(place_before(self._connection, self._events, end, rows), lowest)
            yield from self._between(wanted, start, end)
            if start > lowest:
                yield start, self._time_at(start), None
            end, rows = start, min(rows * 4, _MOST_ROWS)

    def _between(
        self, wanted: Filters, start: int, end: int
    ) -> Iterator[tuple[int, int | None, Any]]:
        event = self._events.c
        spoken_in = or_(
            (event.type == MESSAGE_LOGGED) & contains(event.data, _pieces(self._text, _VERBATIM)),
            (event.type == OTEL_SPAN) & contains(event.data, _pieces(self._text, _PLAIN)),
        )
        columns = (event.seq, event.event_id, event.type, event.timestamp_ms, event.data)
        query = (
            select(event.position, event.session_id, *columns)
            .where(event.position >= start, *by_position(self._events))
            .where(spoken_in, *wanted.conditions(self._events))
            .order_by(event.position.desc())
            .limit(_AT_ONCE)
        )
        while True:
            with self._rests.after_this():
                rows = self._connection.execute(query.where(event.position < end)).all()
            for row in rows:
                yield row.position, row.timestamp_ms, row
            if len(rows) < _AT_ONCE:
                return
            end = rows[-1].position

    def _time_at(self, position: int) -> int | None:
        event = self._events.c
        query = select(event.timestamp_ms).where(event.position == position)
        return self._connection.execute(query).scalar()

    def match(self, position: int, row: Any) -> Found | None:
        """Return what was found in a row; None if the text is not in what was said."""
        _, session_id, *columns = row
        entry = entry_of(*columns)
        said = [(entry.role, entry.content)]
        if entry.type == OTEL_SPAN:
            if entry.role == "tool" or position not in self._transcript(session_id):
                return None
            if self._asked[session_id]:
                said.append(("user", entry.prompt))
        for role, text in said:
            place = -1 if text is None else text.lower().find(self._folded)
            if text is not None and place >= 0:
                start = max(place - _BEFORE, 0)
                excerpt = " ".join(text[start : start + MOST_CHARACTERS].split())
                whose = (entry.seq, entry.event_id, session_id, entry.timestamp_ms, entry.type)
                return Found(position, *whose, role, excerpt)
        return None

    def _transcript(self, session_id: str | None) -> frozenset[int]:
        """Return the positions of the spans that are in the transcript of a conversation."""
        if session_id is None:
            return frozenset()
        if session_id not in self._transcripts:
            told = spoken(self._connection, session_id, self._events)
            self._transcripts[session_id] = frozenset(told.positions)
            self._asked[session_id] = told.asked
        return self._transcripts[session_id]


def _pieces(text: str, plain: re.Pattern[str]) -> list[str]:
    """Return the parts of a text that are in JSON as they are, whatever encoded it."""
    return plain.findall(text)

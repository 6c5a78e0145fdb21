"""The events that a target is to get, in the order of arrival, and what came before them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import func, select

from tracker.collector.forwarding.positions import Target, of_target
from tracker.collector.tables import events
from tracker.events import COMPLIANCE_ERASED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Row

_TOGETHER = 20
"""Events whose data, up to some MiB each, are read at a time."""
_MOST_DEPTH = 300
"""How deeply a value may be nested, so that every function that walks through it can."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)
_TEXTS = ("data", "context", "trace")
_OUTBOX = ("client_id", "outbox_id")
_COLUMNS = (
    "seq", "event_id", "type", "timestamp_ms", "agent_id", "session_id", "user_id", *_TEXTS,
)  # fmt: skip


class Arrival(NamedTuple):
    """An event that has arrived.

    Attributes:
        id: Its number in the order of arrival.
        size: How many characters its data has.
        event: The event as it was sent, and its ``client_id`` and ``outbox_id``.
    """

    id: int
    size: int
    event: dict[str, Any]


class Span(NamedTuple):
    """A part of the order of arrival: ids after the first, up to the last."""

    after: int
    through: int


def arrivals(
    connection: Connection, target: Target, part: Span, most: int, most_characters: int
) -> list[Arrival]:
    """Return the first events for a target in a part of the order of arrival.

    Args:
        connection: A read transaction.
        target: The target.
        part: Where to look for events.
        most: Maximum number of events.
        most_characters: No more events are read once their data has so many characters.
    """
    columns = [events.c[name] for name in ("id", *_OUTBOX, *_COLUMNS)]
    query = (
        select(*columns)
        .where(events.c.id > part.after, events.c.id <= part.through, *of_target(target))
        .order_by(events.c.id)
        .limit(most)
    )
    found: list[Arrival] = []
    size = 0
    with connection.execute(query.execution_options(yield_per=_TOGETHER)) as rows:
        for row in rows:
            size += len(row.data)
            if found and size > most_characters:
                break
            outbox = {name: getattr(row, name) for name in _OUTBOX}
            found.append(Arrival(row.id, len(row.data), {**_event(row), **outbox}))
    return found


class ReceivedHistory:
    """What a mapper asks about the events of one outbox.

    Args:
        reading: Returns the read transaction of the moment.
        client_id: The client.
        outbox_id: The outbox.
    """

    def __init__(self, reading: Callable[[], Connection], client_id: str, outbox_id: str) -> None:
        self._reading = reading
        self._client_id = client_id
        self._outbox_id = outbox_id

    def earlier(self, session_id: str, after: int, before: int) -> Iterator[dict[str, Any]]:
        """Yield the events of a conversation with a seq between the two, in order."""
        query = (
            select(*(events.c[name] for name in _COLUMNS))
            .where(
                events.c.client_id == self._client_id,
                events.c.session_id == session_id,
                events.c.outbox_id == self._outbox_id,
                events.c.seq > after,
                events.c.seq < before,
            )
            .order_by(events.c.seq, events.c.id)
        )
        streamed = query.execution_options(yield_per=_TOGETHER)
        with self._reading().execute(streamed) as rows:
            yield from map(_event, rows)

    def newest_erasure(self) -> int | None:
        """Return the id of the client's newest event that says that others were erased, or None."""
        mine = (events.c.client_id == self._client_id, events.c.type == COMPLIANCE_ERASED)
        return self._reading().execute(select(func.max(events.c.id)).where(*mine)).scalar()


def _event(row: Row[Any]) -> dict[str, Any]:
    """Return an event as it was sent, without what only its digest needs."""
    event: dict[str, Any] = {name: getattr(row, name) for name in _COLUMNS}
    for name in _TEXTS:
        if event[name] is None:
            del event[name]
        else:
            event[name] = _parsed(event[name])
    return event


def _parsed(text: str) -> Any:
    """Return the value of JSON text, or an object that says that it is nested too deeply.

    Python's own limit depends on who calls; events have to become the same spans each time.
    """
    if _is_deep(text):
        return {"unreadable": f"nested more than {_MOST_DEPTH} levels deep"}
    return json.loads(text)


def _is_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= _MOST_DEPTH:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > _MOST_DEPTH:
            return True
    return False

"""Erasure of the events that a ``compliance.erased`` event names.

It applies to events of the same client in any outbox, and never to those of another client: an
`event_id` is unique only within a client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from tracker.collector.seals import sealed_as
from tracker.collector.tables import UUID_LENGTH, erased_events, events
from tracker.erasure import ERASED, named_events
from tracker.events import COMPLIANCE_ERASED
from tracker.queries.source import portions

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection, Select

    from tracker.collector.batch import ReceivedEvent

_READ_TOGETHER = 20
"""Events whose data, up to some MiB each, are in memory at a time."""
_NAMED_TOGETHER = 250
"""Ids, each in up to three forms, that are within what one query can bind; see `portions`."""


def named_in(connection: Connection, client_id: str, received: Sequence[ReceivedEvent]) -> set[str]:
    """Return the event ids named by new erasure events among those to be stored, in lower case.

    An erasure event that is already stored has already been applied. Another event with the same
    `event_id` is not stored and must not erase anything, since no stored event would name it.
    """
    if all(event.type != COMPLIANCE_ERASED for event in received):
        return set()
    new: dict[str, ReceivedEvent] = {}
    for event in received:
        new.setdefault(event.event_id, event)
    erasures = [event for event in new.values() if event.type == COMPLIANCE_ERASED]
    here: set[str] = set()
    for some in portions([event.event_id for event in erasures]):
        mine = (events.c.client_id == client_id, events.c.event_id.in_(some))
        here |= set(connection.execute(select(events.c.event_id).where(*mine)).scalars())
    return {
        event_id.lower()
        for event in erasures
        if event.event_id not in here
        for event_id in erasable(event.data)
    }


def forms(event_ids: Collection[str]) -> set[str]:
    """Return event ids with both forms in which they may have been stored: lower and upper case.

    A UUID may be written in either. An erasure concerns an event, however its id is written.
    """
    return {form for each in event_ids for form in (each, each.lower(), each.upper())}


def erasable(data: str) -> list[str]:
    """Return the event ids that the data of an erasure event names, and that can be any event's."""
    return [
        event_id
        for event_id in named_events(data)
        if len(event_id) == UUID_LENGTH and event_id.isascii() and event_id.isprintable()
    ]


def erase(connection: Connection, client_id: str, named: Collection[str]) -> int:
    """Replace user and data of these events by what hides them; return how many events changed.

    Their ids are found in lower and in upper case. An event without a salt keeps its user, which
    its digest covers. Events that have not arrived yet are noted, for `as_stored`. Erasure events
    are never erased.
    """
    erased = 0
    for some in portions(named, _READ_TOGETHER):
        mine = (events.c.client_id == client_id, events.c.event_id.in_(forms(some)))
        rows = connection.execute(
            select(events.c.id, events.c.user_id, events.c.data, events.c.seal).where(
                *mine, events.c.type != COMPLIANCE_ERASED, func.rtrim(events.c.data) != ERASED
            )
        ).all()
        for row in rows:
            _erase(connection, client_id, *row)
        erased += len(rows)
        here = _lower(connection, select(events.c.event_id).where(*mine))
        noted = _lower(connection, _noted(client_id, some))
        if missing := set(some) - here - noted:
            notes = [{"client_id": client_id, "event_id": event_id} for event_id in missing]
            connection.execute(erased_events.insert(), notes)
    return erased


def _erase(
    connection: Connection,
    client_id: str,
    id: int,
    user_id: str | None,
    data: str,
    seal: str | None,
) -> None:
    kept, sealed = (user_id, None) if seal is None else (None, sealed_as(user_id, data, seal))
    freed = 0 if kept == user_id else len((user_id or "").encode())
    connection.execute(
        update(events)
        .where(events.c.client_id == client_id, events.c.id == id)
        .values(user_id=kept, seal=sealed, data=_marker(connection.dialect.name, data, freed))
    )


def as_stored(
    connection: Connection,
    client_id: str,
    received: Sequence[ReceivedEvent],
    named: set[str],
    *,
    may_be_noted: bool,
) -> Sequence[ReceivedEvent]:
    """Return events as they are to be stored: without data if they have already been erased.

    Args:
        connection: The transaction that stores them.
        client_id: Their client.
        received: The events.
        named: The event ids named by erasure events in the same batch, in lower case.
        may_be_noted: Whether any of the client's events may have been noted by `erase`.
    """
    gone = set(named)
    if may_be_noted:
        for some in portions([event.event_id for event in received], _NAMED_TOGETHER):
            gone |= _lower(connection, _noted(client_id, some))
    if not gone:
        return received
    return [
        _sealed(event)
        if event.event_id.lower() in gone and event.type != COMPLIANCE_ERASED
        else event
        for event in received
    ]


def _sealed(event: ReceivedEvent) -> ReceivedEvent:
    if event.seal is None:
        return event._replace(data=ERASED)
    sealed = sealed_as(event.user_id, event.data, event.seal)
    return event._replace(user_id=None, data=ERASED, seal=sealed)


def _noted(client_id: str, event_ids: list[str]) -> Select[Any]:
    return select(erased_events.c.event_id).where(
        erased_events.c.client_id == client_id, erased_events.c.event_id.in_(forms(event_ids))
    )


def _lower(connection: Connection, query: Select[Any]) -> set[str]:
    return {event_id.lower() for event_id in connection.execute(query).scalars()}


def _marker(dialect: str, data: str, freed: int) -> str:
    """Return the marker, which in SQLite is padded with spaces to the size of what was erased.

    SQLite then overwrites the old bytes in place. If rows shrank, SQLite would move other rows
    between pages, and copies of them would stay in the unused parts of pages, where a later erasure
    would not overwrite them. PostgreSQL keeps the old row until VACUUM or autovacuum has reused its
    space.

    Args:
        dialect: The kind of the database.
        data: The data.
        freed: Bytes that the row has lost in other columns.
    """
    if dialect != "sqlite":
        return ERASED
    before = len(data.encode())
    size = before + freed
    if freed:
        size += _length_bytes(freed) - 1
    size -= _length_bytes(size) - _length_bytes(before)
    return ERASED.ljust(size)


def _length_bytes(size: int) -> int:
    """Return how many bytes the size of a text takes in a row (sqlite.org/fileformat2, 2.1)."""
    return -(-(2 * size + 13).bit_length() // 7)

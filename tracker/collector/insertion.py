"""Storing a batch's events, each once, and telling which of them are new."""

from __future__ import annotations

import functools
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from tracker.collector.batch import ReceivedEvent, trace_id_of
from tracker.collector.tables import events
from tracker.queries.source import portions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from tracker.collector.batch import Batch

COLUMNS = ("client_id", "outbox_id", "sent_at_ms", "received_at_ms", *ReceivedEvent._fields,
           "trace_id")  # fmt: skip
_MANY = 20
"""How many rows PostgreSQL stores sooner by COPY than by one INSERT."""
_TRIAL_ROW = ("", "", 0, 0, 0, "", "", 0, None, None, None, "{}", "", "", None, None, None, None)


def insert(
    connection: Connection,
    batch: Batch,
    received: Sequence[ReceivedEvent],
    highest_seq: int,
    received_at_ms: int,
) -> Sequence[ReceivedEvent]:
    """Store events that are not stored yet, by their `event_id`, and return those.

    Args:
        connection: The transaction, which excludes others that write to the outbox.
        batch: The batch that they came in.
        received: The events as they are to be stored.
        highest_seq: The highest seq that is stored of the outbox.
        received_at_ms: The collector's clock, Unix milliseconds.
    """
    if not received:
        return ()
    is_behind = min(event.seq for event in received) > highest_seq
    if not is_behind:
        received = _unknown(connection, batch.client_id, received)
    rows = _rows(batch, received, received_at_ms)
    if (
        not rows
        or (is_behind and _copy(connection, rows))
        or _insert(connection, rows) == len(rows)
    ):
        return received
    # Some came meanwhile, or before, by another outbox of the client, or twice in this batch.
    above = highest_seq if is_behind else 0
    return _of_outbox(connection, batch, received, above)


def insert_all(connection: Connection, batches: Iterable[Batch], received_at_ms: int) -> None:
    """Insert the events of batches into PostgreSQL, none of which is stored yet.

    Args:
        connection: The transaction, which excludes others that write to their outboxes.
        batches: The batches.
        received_at_ms: The collector's clock, Unix milliseconds.

    Raises:
        KnownError: if any is: nothing but a rollback is possible then.
    """
    rows = [row for batch in batches for row in _rows(batch, batch.events, received_at_ms)]
    if len(rows) >= _MANY:
        _copy_rows(connection, rows)
    elif _insert(connection, rows) < len(rows):
        raise KnownError


class KnownError(Exception):
    """An event is stored already."""


def _rows(
    batch: Batch, received: Sequence[ReceivedEvent], received_at_ms: int
) -> list[tuple[Any, ...]]:
    common = (batch.client_id, batch.outbox_id, batch.sent_at_ms, received_at_ms)
    return [(*common, *event, trace_id_of(event)) for event in received]


def try_insert(connection: Connection) -> None:
    """Insert a row of no client, for the caller to roll back."""
    _insert(connection, [_TRIAL_ROW])


def _copy(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> bool:
    """Store many rows in PostgreSQL at once; return False, and store none, if any is known.

    Raises:
        SQLAlchemyError: if that fails; it quotes no row.
    """
    if connection.dialect.name == "sqlite" or len(rows) < _MANY:
        return False
    with connection.begin_nested() as savepoint:
        try:
            _copy_rows(connection, rows)
        except KnownError:
            savepoint.rollback()
            return False
    return True


def _copy_rows(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    driver: Any = connection.connection.driver_connection
    errors: Any = connection.dialect.loaded_dbapi
    statement = f"COPY {events.name} ({', '.join(COLUMNS)}) FROM STDIN"
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except errors.errors.UniqueViolation:
        raise KnownError from None
    except errors.Error as error:
        # Its own text says which line it was, and what was in it.
        raise SQLAlchemyError(error.diag.message_primary or "the connection is lost") from None


def _insert(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> int:
    """Insert rows of `COLUMNS` that are not known, and return how many those are.

    It is text for the driver: passing 500 rows to SQLAlchemy's `execute` takes 4 times as long.
    """
    if connection.dialect.name == "sqlite":
        return connection.exec_driver_sql(_statement("?", 1), list(rows)).rowcount
    stored = 0
    for start in range(0, len(rows), _MANY):
        some = rows[start : start + _MANY]
        values = tuple(chain.from_iterable(some))
        stored += connection.exec_driver_sql(_statement("%s", len(some)), values).rowcount
    return stored


@functools.cache
def _statement(sign: str, rows: int) -> str:
    row = f"({', '.join([sign] * len(COLUMNS))})"
    return (
        f"INSERT INTO {events.name} ({', '.join(COLUMNS)}) VALUES {', '.join([row] * rows)} "  # noqa: S608 - our own names
        "ON CONFLICT (client_id, event_id) DO NOTHING"
    )


def _unknown(
    connection: Connection, client_id: str, received: Sequence[ReceivedEvent]
) -> Sequence[ReceivedEvent]:
    """Return the events of which none with the same id is stored, the first of each id."""
    new: dict[str, ReceivedEvent] = {}
    for event in received:
        new.setdefault(event.event_id, event)
    for some in portions(list(new)):
        mine = (events.c.client_id == client_id, events.c.event_id.in_(some))
        for event_id in connection.execute(select(events.c.event_id).where(*mine)).scalars():
            del new[event_id]
    return list(new.values())


def _of_outbox(
    connection: Connection, batch: Batch, received: Sequence[ReceivedEvent], above: int
) -> Sequence[ReceivedEvent]:
    """Return the events that are stored with this outbox and a seq above another."""
    first: dict[str, ReceivedEvent] = {}
    for event in received:
        first.setdefault(event.event_id, event)
    here: set[str] = set()
    for some in portions(list(first)):
        query = select(events.c.event_id).where(
            events.c.client_id == batch.client_id,
            events.c.event_id.in_(some),
            events.c.outbox_id == batch.outbox_id,
            events.c.seq > above,
        )
        here.update(connection.execute(query).scalars())
    return [event for event_id, event in first.items() if event_id in here]

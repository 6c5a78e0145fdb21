"""Reading pending events in batches, in the form in which they are sent."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tracker.erasure import ERASED
from tracker.events import Event
from tracker.outbox.schema import tables
from tracker.outbox.store import identity
from tracker.outbox.store.erasures import Erasures
from tracker.outbox.store.transaction import driver_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


_NEXT = f"""
SELECT seq, {tables.EVENT}, chain
FROM events
WHERE seq > ? AND seq <= ? AND {tables.PENDING}
ORDER BY seq LIMIT ?
"""
_NO_LIMIT = 2**63 - 1


class Row(NamedTuple):
    """One pending event in the form in which it is sent."""

    seq: int
    event_id: str
    wire: bytes


@dataclass(frozen=True)
class Batch:
    """Pending events in ascending order of seq, read at one moment.

    Attributes:
        after: `sync_state.settled_through` when the batch was read.
        rows: The events to send.
        size: Bytes of the encoded events, commas included.
        damaged: The seqs of rows that do not match their digest: they must not be sent.
        more: Whether a limit ended the batch, so that more events are certainly pending.
        erasure: The seq of the newest erasure event, or None.
        outbox_id: The outbox that the seqs belong to. Another one may have replaced it by the time
            that the receipt comes.
    """

    after: int
    rows: Sequence[Row]
    size: int
    damaged: Sequence[int] = ()
    more: bool = False
    erasure: int | None = None
    outbox_id: str = ""

    @property
    def through(self) -> int:
        """The last seq of the batch, damaged rows included; `after` if it is empty."""
        return max([self.after, *self.damaged, *(row.seq for row in self.rows[-1:])])

    def first(self, count: int) -> Batch:
        """Return the batch of only the first `count` events."""
        if count >= len(self.rows):
            return self
        rows, end = self.rows[:count], self.rows[count].seq
        return replace(
            self,
            rows=rows,
            size=sum(len(row.wire) + 1 for row in rows),
            damaged=[seq for seq in self.damaged if seq < end],
            more=True,
        )


def next_batch(
    connection: Connection,
    max_events: int,
    max_bytes: int,
    after: int | None = None,
    last: int | None = None,
) -> Batch:
    """Return the next pending events; at least one, if any is pending.

    The cursor is closed before this returns: none is open while a request is under way. With
    `after`, return the batch that is next once all events up to there are settled; with `last`,
    take no event after that one.
    """
    if after is None:
        after = settled_through(connection)
    rows: list[Row] = []
    damaged: list[int] = []
    size = 0
    more = False
    erasure, erasures = newest_erasure(connection), Erasures(connection)
    # The driver's own cursor: SQLAlchemy's rows would take twice as long.
    result = driver_of(connection).execute(
        _NEXT, (after, _NO_LIMIT if last is None else last, max_events)
    )
    try:
        for seq, *fields, chain in result:
            event = Event(*fields)
            if not (event.is_intact or is_erased(event, erasures)):
                damaged.append(seq)
                continue
            wire = event.wire(seq, chain).encode()
            if rows and size + len(wire) + 1 > max_bytes:
                more = True
                break
            rows.append(Row(seq, event.event_id, wire))
            size += len(wire) + 1
    finally:
        result.close()
    more = more or len(rows) + len(damaged) == max_events
    outbox_id = identity.read(connection).outbox_id
    return Batch(after, rows, size, damaged, more, erasure, outbox_id)


def is_next(connection: Connection, batch: Batch, received: Sequence[Batch] = ()) -> bool:
    """Return True if a batch that was read in advance is still the next one to send.

    It is not if the batch before it did not arrive, or if an operator has made an event pending
    again, discarded one or made one a dead letter meanwhile; nor if any event was erased, or the
    outbox was replaced.

    Args:
        connection: A read connection.
        batch: The batch.
        received: Earlier batches that were received, which the outbox does not know yet.
    """
    if identity.read(connection).outbox_id != batch.outbox_id:
        return False
    if newest_erasure(connection) != batch.erasure:
        return False
    sent = (row.seq for each in (*received, batch) for row in each.rows)
    expected = sorted([*sent, *batch.damaged])
    return pending_between(connection, settled_through(connection) + 1, batch.through) == expected


def pending_between(connection: Connection, first: int, last: int) -> list[int]:
    """Return the seqs of the pending events from `first` to `last`, in order."""
    query = f"SELECT seq FROM events WHERE seq BETWEEN ? AND ? AND {tables.PENDING} ORDER BY seq"
    return [seq for (seq,) in driver_of(connection).execute(query, (first, last)).fetchall()]


def newest_erasure(connection: Connection) -> int | None:
    """Return the seq of the newest erasure event, or None."""
    newest: int | None = connection.exec_driver_sql(
        "SELECT max(seq) FROM events WHERE type = 'compliance.erased'"
    ).scalar()
    return newest


def is_erased(event: Event, erasures: Erasures) -> bool:
    """Return True if an event without its digest is an erased one that never had a salt.

    Nothing checks its other columns either: they must at least be of the types that are sent.
    """
    if not (event.data == ERASED and event.salt is event.sealed is None):
        return False
    sendable = type(event.timestamp_ms) is int and all(
        each is None or isinstance(each, str)
        for each in (event.type, event.agent_id, event.session_id, event.user_id, event.digest)
    )
    return sendable and erasures.name(event)


def settled_through(connection: Connection) -> int:
    """Return the seq up to which no event is pending."""
    return int(connection.exec_driver_sql("SELECT settled_through FROM sync_state").scalar_one())

"""How many events of each outbox are here, held against its highest number: at once, by no walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import exists, func, select

from tracker.collector import derived, discarded, marks, rejections
from tracker.collector.integrity import state
from tracker.collector.tables import events, heads
from tracker.collector.tables import rejections as rejections_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tracker.collector.integrity import Chain


@dataclass(frozen=True)
class OutboxCount:
    """What of an outbox is here.

    Attributes:
        client_id: Its client.
        outbox_id: Its id.
        events: Number of events.
        highest_seq: The highest seq of an event or a refusal; 0 if there are none.
        missing: Number of seqs up to there that have neither; a reused one hides one of them.
        refused: Number of refused events.
        discarded: Number of seqs that the outbox has named as given up; some may be here.
        forked: Whether two events have one seq, or two heads contradict one another.
        last_received_ms: When an event was last received, Unix milliseconds; None if none was.
        received_directly: As in `integrity.OutboxReport`.
        chain: As in the last report on the outbox; None if it is not known.
        checked_through_seq: Up to where that was; 0 if it is not known.
        checked_at_ms: When all events up to there were last read, Unix milliseconds, or None.
    """

    client_id: str
    outbox_id: str
    events: int
    highest_seq: int
    missing: int
    refused: int
    discarded: int
    forked: bool
    last_received_ms: int | None
    received_directly: bool
    chain: Chain | None = None
    checked_through_seq: int = 0
    checked_at_ms: int | None = None


def outboxes(connection: Connection, client_id: str | None) -> Iterator[tuple[str, str]]:
    """Yield client and id of each outbox, of one client or of all, in the order of these.

    Last come those of which everything was refused.
    """
    yield from _with_events(connection, client_id)
    refused, event = rejections_table.c, events.c
    stored = exists().where(
        event.client_id == refused.client_id, event.outbox_id == refused.outbox_id
    )
    query = select(refused.client_id, refused.outbox_id).where(refused.seq > 0, ~stored).distinct()
    if client_id is not None:
        query = query.where(refused.client_id == client_id)
    for row in connection.execute(query.order_by(refused.client_id, refused.outbox_id)):
        yield row[0], row[1]


def _with_events(connection: Connection, client_id: str | None) -> Iterator[tuple[str, str]]:
    event = events.c
    place = (event.client_id, event.outbox_id)
    query = select(*place).order_by(*place).limit(1)
    # From one to the next in the index: there are few, and many events of each.
    mine = [] if client_id is None else [event.client_id == client_id]
    last = connection.execute(query.where(*mine)).first()
    while last is not None:
        yield last[0], last[1]
        same = (event.client_id == last[0], event.outbox_id > last[1])
        following = connection.execute(query.where(*same)).first()
        if following is None and client_id is None:
            following = connection.execute(query.where(event.client_id > last[0])).first()
        last = following


def count(connection: Connection, client_id: str, outbox_id: str) -> OutboxCount:
    """Return what of an outbox is here."""
    event = events.c
    mine = (event.client_id == client_id, event.outbox_id == outbox_id)
    mark = marks.read(connection, client_id, outbox_id)
    if mark is None:
        stored = connection.execute(select(func.count()).where(*mine)).scalar_one()
    else:
        stored = mark.walk.events + marks.newer(connection, client_id, outbox_id, mark).events
    highest, newest = connection.execute(
        select(func.max(event.seq), func.max(event.id)).where(
            *mine, event.seq == select(func.max(event.seq)).where(*mine).scalar_subquery()
        )
    ).one()
    received = select(event.received_at_ms).where(*mine, event.id == newest)
    refused = [seq for seq, _ in rejections.refused(connection, client_id, outbox_id)]
    given_up = discarded.ranges(connection, client_id, outbox_id)
    forked = select(heads.c.forked).where(
        heads.c.client_id == client_id, heads.c.outbox_id == outbox_id
    )
    highest_seq = max(highest or 0, *refused, 0)
    return OutboxCount(
        client_id,
        outbox_id,
        events=stored,
        highest_seq=highest_seq,
        missing=max(highest_seq - stored - len(refused), 0),
        refused=len(refused),
        discarded=sum(last - first + 1 for first, last in given_up),
        forked=bool(connection.execute(forked).scalar()),
        last_received_ms=connection.execute(received).scalar(),
        received_directly=outbox_id == derived.outbox_id_of(client_id),
        chain=None if mark is None else state(mark.walk),
        checked_through_seq=0 if mark is None else mark.walk.seq,
        checked_at_ms=None if mark is None else mark.checked_at_ms,
    )

"""The place of what arrives without an outbox, in a virtual outbox of its client.

Numbers and chain are made here, on arrival. They say what the collector has stored, and nothing of
what the sender has made.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import select

from tracker import canonical
from tracker.collector.tables import events
from tracker.queries.source import portions

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.collector.batch import Batch, ReceivedEvent


def numbered(connection: Connection, batch: Batch, highest_seq: int) -> Batch:
    """Return a batch with its new events only, numbered and chained after those stored before.

    Args:
        connection: The transaction that stores them, which excludes others of this client.
        batch: The batch; its events have neither seq nor chain.
        highest_seq: The highest seq of its outbox that is stored; 0 if nothing is.
    """
    new: dict[str, ReceivedEvent] = {}
    for event in batch.events:
        new.setdefault(event.event_id, event)
    mine = events.c.client_id == batch.client_id
    for some in portions(list(new)):
        known = select(events.c.event_id).where(mine, events.c.event_id.in_(some))
        for event_id in connection.execute(known).scalars():
            del new[event_id]
    last = select(events.c.chain).where(
        mine, events.c.outbox_id == batch.outbox_id, events.c.seq == highest_seq
    )
    chain = connection.execute(last.limit(1)).scalar() or canonical.GENESIS
    placed = []
    for seq, event in enumerate(new.values(), highest_seq + 1):
        chain = canonical.chain(chain, event.digest)
        placed.append(event._replace(seq=seq, chain=chain))
    return replace(batch, events=tuple(placed))

"""Noticing that two copies of an outbox send: they give the same seq to different events."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select, update

from tracker.collector.cosigning import Cosigned
from tracker.collector.tables import checkpoints, events, heads

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.collector.batch import Batch


class Head(NamedTuple):
    """What is known of an outbox.

    Attributes:
        highest_seq: The highest seq that is stored; 0 if nothing is.
        forked: Whether a seq was found that two events have, or a head that contradicts another.
        cosigned: The newest head that was cosigned for this client, or None.
    """

    highest_seq: int
    forked: bool
    cosigned: Cosigned | None


def read(connection: Connection, client_id: str, outbox_id: str) -> Head:
    """Return what is known of an outbox that a batch has come from."""
    highest = (
        select(func.max(events.c.seq))
        .where(events.c.client_id == client_id, events.c.outbox_id == outbox_id)
        .scalar_subquery()
    )
    newest = (checkpoints.c[name] for name in ("id", "size", "root", "note"))
    query = (
        select(func.coalesce(highest, 0), heads.c.forked, *newest)
        .select_from(heads.outerjoin(checkpoints, heads.c.checkpoint_id == checkpoints.c.id))
        .where(heads.c.client_id == client_id, heads.c.outbox_id == outbox_id)
    )
    highest_seq, forked, *cosigned = connection.execute(query).one()
    return Head(highest_seq, forked, None if cosigned[0] is None else Cosigned(*cosigned))


def is_known(connection: Connection, client_id: str, outbox_id: str) -> bool:
    """Return True if any batch of this outbox came from this client."""
    return version(connection, client_id, outbox_id) is not None


def version(connection: Connection, client_id: str, outbox_id: str) -> int | None:
    """Return a number that each batch of an outbox raises; None if there was none."""
    mine = (heads.c.client_id == client_id, heads.c.outbox_id == outbox_id)
    return connection.execute(select(heads.c.version).where(*mine)).scalar()


def update_head(connection: Connection, batch: Batch, before: Head) -> Head:
    """Return what is known after new events of a batch were stored; remember a fork.

    Args:
        connection: The transaction that stored them.
        batch: The batch.
        before: What was known before.
    """
    seqs = {event.seq for event in batch.events}
    forked = before.forked
    if not forked and (min(seqs) <= before.highest_seq or len(seqs) < len(batch.events)):
        forked = _is_reused(connection, batch, seqs)
        if forked:
            connection.execute(
                update(heads)
                .where(heads.c.client_id == batch.client_id, heads.c.outbox_id == batch.outbox_id)
                .values(forked=True)
            )
    return Head(max(before.highest_seq, *seqs), forked, before.cosigned)


def _is_reused(connection: Connection, batch: Batch, seqs: set[int]) -> bool:
    query = (
        select(events.c.seq)
        .where(
            events.c.client_id == batch.client_id,
            events.c.outbox_id == batch.outbox_id,
            events.c.seq.in_(seqs),
        )
        .group_by(events.c.seq)
        .having(func.count() > 1)
        .limit(1)
    )
    return connection.execute(query).first() is not None

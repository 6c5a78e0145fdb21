"""Noticing that two copies of an outbox send: they give the same seq to different events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tracker.collector.tables import events

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection


def is_reused(
    connection: Connection, client_id: str, outbox_id: str, seqs: Collection[int]
) -> bool:
    """Return True if several events of an outbox have one of these numbers."""
    query = (
        select(events.c.seq)
        .where(
            events.c.client_id == client_id,
            events.c.outbox_id == outbox_id,
            events.c.seq.in_(seqs),
        )
        .group_by(events.c.seq)
        .having(func.count() > 1)
        .limit(1)
    )
    return connection.execute(query).first() is not None

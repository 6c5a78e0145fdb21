"""Which events of an outbox will never arrive, by its own ``events.discarded`` events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from tracker import discards
from tracker.collector.tables import events
from tracker.events import EVENTS_DISCARDED

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.discards import Range

_MOST = 100_000
"""Ranges that are read of one client: a device names a few."""
_FETCH_ROWS = 100


def of_client(connection: Connection, client_id: str) -> dict[str, list[Range]]:
    """Return the ranges of seq that each outbox of a client has given up, merged.

    An outbox that replaced one may have sent what that one still had to say.
    """
    found: dict[str, list[Range]] = {}
    number = 0
    query = (
        select(events.c.outbox_id, events.c.data)
        .where(events.c.client_id == client_id, events.c.type == EVENTS_DISCARDED)
        .execution_options(yield_per=_FETCH_ROWS)
    )
    with connection.execute(query) as result:
        for sender, data in result:
            said = discards.read(data)
            found.setdefault(said.outbox_id or sender, []).extend(said.ranges)
            number += len(said.ranges)
            if number > _MOST:
                break
    return {outbox_id: discards.merged(ranges) for outbox_id, ranges in found.items()}


def ranges(connection: Connection, client_id: str, outbox_id: str) -> list[Range]:
    """Return the ranges of seq that an outbox has given up, merged."""
    return of_client(connection, client_id).get(outbox_id, [])

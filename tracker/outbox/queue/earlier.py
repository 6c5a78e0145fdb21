"""`Earlier`: what destinations ask of an outbox besides the events that they send."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tracker.events import Event
from tracker.outbox.queue.batches import is_erased, newest_erasure
from tracker.outbox.schema import tables
from tracker.outbox.store.erasures import Erasures
from tracker.outbox.store.transaction import driver_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

_EARLIER = f"""
SELECT seq, {tables.EVENT}, chain FROM events
WHERE session_id = ? AND seq > ? AND seq < ? ORDER BY seq
"""


class Earlier:
    """Reads the events of a conversation that came before others.

    Args:
        reading: Lends a read connection.
    """

    def __init__(self, reading: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._reading = reading

    def earlier(self, session_id: str, after: int, before: int) -> list[dict[str, Any]]:
        """Return the events of a conversation with a seq between the two, as they are sent.

        Those that were changed on disk are left out, as they are never sent.

        Raises:
            OutboxError: if the outbox cannot be read.
        """
        with self._reading() as connection:
            found = driver_of(connection).execute(_EARLIER, (session_id, after, before)).fetchall()
            erasures = Erasures(connection)
            return [
                json.loads(event.wire(seq, chain))
                for seq, *fields, chain in found
                if (event := Event(*fields)).is_intact or is_erased(event, erasures)
            ]

    def newest_erasure(self) -> int | None:
        """Return the seq of the newest event that says that others were erased, or None.

        Raises:
            OutboxError: if the outbox cannot be read.
        """
        with self._reading() as connection:
            return newest_erasure(connection)

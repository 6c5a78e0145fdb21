"""`Urgent`: finds the newest pending event that may not wait, without reading any row twice."""

# ruff: noqa: S608 - the query is made of constant text

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.outbox.queue.batches import settled_through
from tracker.outbox.schema import tables
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from sqlalchemy import Connection

_NEWEST = f"""
SELECT max(seq) FROM events
WHERE seq > ? AND seq <= ? AND type = 'security.reported' AND {tables.PENDING}
  AND CASE WHEN json_valid(data) THEN json_extract(data, '$.severity') END = 'critical'
"""


class Urgent:
    """Remembers how far it has read; an outbox that replaces another one needs another object."""

    def __init__(self) -> None:
        self._read = 0
        self._newest = 0

    def newest(self, connection: Connection) -> int:
        """Return the seq of the newest critical security event that was found; 0 if none.

        It was pending when it was found.
        """
        after, last = max(self._read, settled_through(connection)), ledger.last_seq(connection)
        if last > after:
            found = connection.exec_driver_sql(_NEWEST, (after, last)).scalar()
            self._newest = found or self._newest
        self._read = last
        return self._newest

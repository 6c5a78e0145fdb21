"""`Horizon`: up to which id all events are stored that ever will be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tracker.collector.tables import events

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.collector.database import Database

# An INSERT takes the lock before it gets an id, and keeps it until its events can be seen.
_WRITERS = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND pid IS DISTINCT FROM pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND relation = 'events'::regclass
"""


class Horizon:
    """Finds the newest event before which no other can appear any more.

    PostgreSQL gives out ids before transactions commit. The batches of one client exclude each
    other, those of two clients do not: an event can appear after one with a higher id, and a reader
    that had gone on from there would never see it. So the newest id is only used when every
    transaction that was storing events when it was read has ended. Nobody is kept from writing
    meanwhile. In SQLite there is one writer at a time.

    Attributes:
        settled: All events with this id or a lower one are stored, as far as they ever will be.
    """

    def __init__(self, database: Database) -> None:
        self.settled = 0
        self._database = database
        self._newest = 0
        self._writers: frozenset[str] = frozenset()

    def look(self) -> bool:
        """Look for new events; return False if transactions have to end first: look again soon.

        Raises:
            StorageError: if the database could not be read.
        """
        with self._database.reading() as connection:
            if self._writers:
                self._writers &= self._storing(connection)
            else:
                newest = connection.execute(select(func.max(events.c.id))).scalar()
                self._newest = newest or 0
                self._writers = self._storing(connection)
        if not self._writers:
            self.settled = self._newest
        return not self._writers

    def _storing(self, connection: Connection) -> frozenset[str]:
        """Return the transactions that are storing events now, whatever the snapshot."""
        if self._database.dialect == "sqlite":
            return frozenset()
        return frozenset(connection.exec_driver_sql(_WRITERS).scalars())

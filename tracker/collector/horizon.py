"""`Horizon`: up to which id all events are stored that ever will be."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from tracker import clock
from tracker.collector.tables import events

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.collector.database import Database

WAIT_SECONDS = 0.05
"""How long a reader waits for transactions that are storing events."""
_PAUSE_SECONDS = 0.002
"""How long it waits between the first two looks; from then on twice as long each time."""

# What stores events takes the lock before it gets an id, and keeps it until they can be seen.
_WRITERS = """
SELECT virtualtransaction FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND pid IS DISTINCT FROM pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND relation = 'events'::regclass
"""


class Horizon:
    """Finds the newest event before which no other can appear any more. Thread-safe.

    PostgreSQL gives out ids before transactions commit, and batches of several outboxes are stored
    at the same time: an event can appear after one with a higher id, and a reader that had gone on
    from there would never see it. So the newest id is only used when every transaction that was
    storing events when it was read has ended. Nobody is kept from writing meanwhile, and no other
    transaction matters, however long it takes. In SQLite there is one writer at a time.

    Attributes:
        settled: All events with this id or a lower one are stored, as far as they ever will be. A
            transaction sees them if it began after this was read.
    """

    def __init__(self, database: Database) -> None:
        self.settled = 0
        self._database = database
        self._newest = 0
        self._writers: frozenset[str] = frozenset()
        self._begun = self._ended = 0  # looks for new events
        self._lock = threading.Lock()
        self._never = threading.Event()

    def look(self) -> bool:
        """Look for new events; return False if transactions have to end first: look again soon.

        Raises:
            StorageError: if the database could not be read.
        """
        with self._lock, self._database.reading() as connection:
            if self._writers:
                self._writers &= self._storing(connection)
            else:
                self._begun += 1
                newest = connection.execute(select(func.max(events.c.id))).scalar()
                self._newest = newest or 0
                self._writers = self._storing(connection)
            if not self._writers:
                self._ended = self._begun
                self.settled = self._newest
            return not self._writers

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Return `settled` when it includes all that is stored now, or after so many seconds.

        Raises:
            StorageError: if the database could not be read.
        """
        end, pause = clock.monotonic() + seconds, _PAUSE_SECONDS
        wanted = self._begun + 1  # one that another reader has begun is about an earlier moment
        while True:
            settled = self.look()
            if self._ended >= wanted or clock.monotonic() >= end:
                return self.settled
            if not settled:
                self._never.wait(pause)
                pause *= 2

    def _storing(self, connection: Connection) -> frozenset[str]:
        """Return the transactions that are storing events now, whatever the snapshot."""
        if self._database.dialect == "sqlite":
            return frozenset()
        return frozenset(connection.exec_driver_sql(_WRITERS).scalars())

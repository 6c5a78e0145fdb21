"""Removing all traces of erased data from the outbox's files.

``secure_delete`` overwrites the old content of a row in place. But when SQLite moves rows from page
to page, as it does when a row grows by its delivery time, copies of them remain in the unused parts
of pages. So the file is rewritten once, by VACUUM, and then its log is emptied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from tracker import log
from tracker.clock import monotonic, sleep
from tracker.errors import OutboxError
from tracker.outbox.schema import errors

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tracker.outbox.store.connections import Connections

FILE = 2
"""`sync_state.scrub_due` if the file itself may contain old data; 1 is only the log, 0 neither."""

_BUSY_MS = 50
"""How long one attempt to empty the log waits for such programs; nobody can write meanwhile."""


def due(connection: Connection) -> int:
    """Return what may still contain old data: the value of `sync_state.scrub_due`."""
    return int(connection.exec_driver_sql("SELECT scrub_due FROM sync_state").scalar_one())


def rewrite(connection: Connection) -> bool:
    """Rewrite the file without its free pages, as far as no program reads an old state of it."""
    connection.exec_driver_sql("VACUUM")
    connection.exec_driver_sql(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
    return True


class Scrubber:
    """Removes all erased data from the files of an outbox.

    Attributes:
        patience_seconds: How long it waits for programs that read an old state of the outbox.
        retry_seconds: How long between two attempts.
    """

    patience_seconds = 5.0
    retry_seconds = 0.1

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def leave_no_trace(self) -> bool:
        """Remove all erased data; return True if no trace is left. Nobody can write meanwhile."""
        with self._connections.reading() as connection:
            if not due(connection):
                return True
        try:
            if self._scrub_in_time():
                return True
        except (DBAPIError, OSError, OutboxError) as error:
            log.warning(
                "traces of erased events are still in the outbox's files; removing them is "
                "retried: %s",
                errors.explain(self._connections.path, error),
            )
            return False
        log.warning(
            "traces of erased events are still in the log of the outbox %s, as long as a program "
            "reads an old state of it; removing them is retried",
            self._connections.path,
        )
        return False

    def _scrub_in_time(self) -> bool:
        end = monotonic() + self.patience_seconds
        while not (done := self._connections.alone(_scrub)):
            if done is None or monotonic() >= end:
                return False
            sleep(self.retry_seconds)
        return True


def _scrub(connection: Connection) -> bool:
    """Rewrite the file and empty its log, as far as is due; return True if all of it is done.

    Returns False while some program reads an old state, which the log holds for it. To be called
    outside of any transaction, while nobody else can write.
    """
    if due(connection) == FILE:
        # In memory, the copy of the outbox could take more than the machine has.
        connection.exec_driver_sql("PRAGMA temp_store=FILE")
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("UPDATE sync_state SET scrub_due = 1")
    connection.exec_driver_sql(f"PRAGMA busy_timeout={_BUSY_MS}")
    busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    if busy:
        return False
    connection.exec_driver_sql("UPDATE sync_state SET scrub_due = 0")
    return True

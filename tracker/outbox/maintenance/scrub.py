"""Leaving no trace of erased data in the outbox's files.

``secure_delete`` overwrites what a row held where it stands. But when SQLite moves rows from page
to page, as it does when a row grows by its delivery time, copies of them stay in the unused parts
of pages. So the file is rewritten once, by VACUUM, and its log is emptied then.
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
"""`sync_state.scrub_due` when the file itself may hold old bytes; 1 is the log alone, 0 neither."""

PATIENCE_SECONDS = 5.0
"""How long an erasure waits for programs that read an old state of the outbox."""

RETRY_SECONDS = 0.1

_BUSY_MS = 50
"""How long one try to empty the log waits for such programs; nobody can write meanwhile."""


def due(connection: Connection) -> int:
    """Return what may still hold old bytes, as `sync_state.scrub_due` has it."""
    return int(connection.exec_driver_sql("SELECT scrub_due FROM sync_state").scalar_one())


def rewrite(connection: Connection) -> bool:
    """Rewrite the file without its free pages, as far as nobody reads an old state of it."""
    connection.exec_driver_sql("VACUUM")
    connection.exec_driver_sql(f"PRAGMA busy_timeout={_BUSY_MS}")
    connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
    return True


def leave_no_trace(connections: Connections) -> bool:
    """Remove what was erased from the files of an outbox; return True if no trace is left.

    Nobody can write meanwhile. Programs that read an old state are waited for, some seconds.
    """
    with connections.reading() as connection:
        if not due(connection):
            return True
    try:
        if _scrub_in_time(connections):
            return True
    except (DBAPIError, OSError, OutboxError) as error:
        log.warning(
            "traces of erased events stay in the outbox's files; it is tried again: %s",
            errors.explain(connections.path, error),
        )
        return False
    log.warning(
        "traces of erased events stay in the log of the outbox %s until no program "
        "reads an old state of it; it is tried again",
        connections.path,
    )
    return False


def _scrub_in_time(connections: Connections) -> bool:
    end = monotonic() + PATIENCE_SECONDS
    while not (done := connections.alone(_scrub)):
        if done is None or monotonic() >= end:
            return False
        sleep(RETRY_SECONDS)
    return True


def _scrub(connection: Connection) -> bool:
    """Rewrite the file and empty its log, as far as is due; return True if all of it is done.

    It is not as long as some program reads an old state: the log holds that for it. To be called
    outside of any transaction, while nobody else can write.
    """
    if due(connection) == FILE:
        # A copy of the outbox in memory could be more than the machine has.
        connection.exec_driver_sql("PRAGMA temp_store=FILE")
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("UPDATE sync_state SET scrub_due = 1")
    connection.exec_driver_sql(f"PRAGMA busy_timeout={_BUSY_MS}")
    busy, _, _ = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    if busy:
        return False
    connection.exec_driver_sql("UPDATE sync_state SET scrub_due = 0")
    return True

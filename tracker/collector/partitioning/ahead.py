"""Makes partitions for the months to come, before their events arrive."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tracker import clock
from tracker.collector.database import StorageError
from tracker.collector.partitioning import catalog, layout
from tracker.collector.partitioning.briefly import briefly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from tracker.collector.database import Database
    from tracker.collector.partitioning.months import Month

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 86_400.0
_FRESH = """
SELECT 1 FROM pg_stat_user_tables
WHERE relid = 'events'::regclass AND last_analyze > now() - interval '23 hours'
"""
_END_SECONDS = 2.0


class Made(NamedTuple):
    """A partition that was made.

    Attributes:
        name: Its name.
        moved: How many events moved there, which had arrived before it was there.
    """

    name: str
    moved: int


def make_ahead(database: Database, now_ms: int, ahead: int = layout.AHEAD) -> list[Made]:
    """Make the partitions that are missing of this month and the following ones.

    Nothing is done where the table is not divided. An event for which there is no partition yet is
    stored with the others, so none is ever refused.

    Args:
        database: The database.
        now_ms: The time, Unix milliseconds.
        ahead: How many months after the present one.

    Raises:
        StorageError: if the database failed, or others kept the table locked.
        TooManyError: if more events of a month arrived already than can be moved.
    """
    if database.dialect != "postgresql":
        return []
    with database.reading() as connection:
        if not catalog.is_partitioned(connection):
            return []
        wanted = layout.missing(connection, now_ms, ahead)
    return [made for month in wanted if (made := _make(database, month, now_ms, ahead))]


def _make(database: Database, month: Month, now_ms: int, ahead: int) -> Made | None:
    def work(connection: Connection) -> Made | None:
        # Another process may have made it since.
        if month not in layout.missing(connection, now_ms, ahead):
            return None
        return Made(month.table, layout.add(connection, month))

    return briefly(database, "ACCESS EXCLUSIVE", work)


def refresh_statistics(database: Database) -> None:
    """Have PostgreSQL look at the divided table as a whole, which autovacuum never does.

    Otherwise it takes one partition for the whole, and plans queries badly. Not more than once a
    day, by whichever process is first.

    Raises:
        StorageError: if the database failed.
    """
    with database.administering() as connection:
        if catalog.is_partitioned(connection) and not connection.exec_driver_sql(_FRESH).first():
            connection.exec_driver_sql("ANALYZE events")


@contextmanager
def keeping(database: Database) -> Iterator[None]:
    """Make partitions ahead within the block: now, and once a day, in a thread."""
    stopping = threading.Event()

    def run() -> None:
        while True:
            try:
                make_ahead(database, int(clock.wall() * 1000))
                refresh_statistics(database)
            except (StorageError, layout.TooManyError) as error:
                logger.warning("a partition for coming events was not made: %s", error)
            if stopping.wait(_EVERY_SECONDS):
                return

    if database.dialect != "postgresql":
        yield
        return
    thread = threading.Thread(target=run, name="partitions", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(_END_SECONDS)

"""Transactions that lock `events`, and give way until they get the lock."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, TypeVar

from tracker import clock
from tracker.collector.database import StorageError
from tracker.collector.partitioning import layout

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.collector.database import Database

T = TypeVar("T")

_LOCK_NOT_AVAILABLE, _DEADLOCK = "55P03", "40P01"
_LONGEST_PAUSE = 2.0
_SECONDS = 600.0


def briefly(
    database: Database, mode: str, work: Callable[[Connection], T], seconds: float = _SECONDS
) -> T:
    """Return the result of `work`, called within a transaction that has `events` locked.

    The lock is waited for a second at a time, since everybody else waits behind it, with pauses in
    between, until long reads have ended.

    Args:
        database: The database.
        mode: The mode of the lock, as in ``SHARE ROW EXCLUSIVE``.
        work: What to do; it may be called again.
        seconds: How long to try.

    Raises:
        StorageError: if it fails, or if there was no moment for it in all that time.
    """
    end = clock.monotonic() + seconds
    while True:
        try:
            with database.writing("schema") as connection:
                layout.lock(connection, mode)
                return work(connection)
        except StorageError as error:
            if not _was_busy(error) or clock.monotonic() > end:
                raise
        clock.sleep(random.uniform(0.1, _LONGEST_PAUSE))  # noqa: S311 - a pause


def _was_busy(error: StorageError) -> bool:
    state = getattr(getattr(error.__cause__, "orig", None), "sqlstate", None)
    return state in (_LOCK_NOT_AVAILABLE, _DEADLOCK)

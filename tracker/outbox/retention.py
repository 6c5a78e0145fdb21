"""What leaves the outbox: delivered events past their time, and the size policy's choices.

Everything here works in small jobs of at most `CHUNK` rows, so that no logging call waits long
behind one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tracker.outbox import account, removal

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.outbox.writer import Transaction

CHUNK = 200

EVERYTHING = 2**63 - 1
"""A time that every delivery came before, whatever the clocks said."""


def prune(delivered_before_ms: int, after: int = 0) -> Callable[[Transaction], tuple[int, int]]:
    """Return the job that removes delivered events among the next `CHUNK` rows past seq `after`.

    Its result: how many were removed, and the seq to go on after, or -1 at the end, which is the
    first delivered event that is still to be kept. One that was delivered in the future, by a
    clock that was wrong, counts as delivered now.
    """

    def job(transaction: Transaction) -> tuple[int, int]:
        connection = transaction.connection
        rows = connection.exec_driver_sql(
            "SELECT seq, chain, delivered_at_ms FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, CHUNK),
        ).all()
        now = time.time_ns() // 1_000_000
        old: list[tuple[int, str]] = []
        reached = after
        for seq, chain, delivered_at_ms in rows:
            if delivered_at_ms is not None and delivered_at_ms < delivered_before_ms:
                old.append((seq, chain))
            elif delivered_at_ms is not None and delivered_at_ms > now:
                connection.exec_driver_sql(
                    "UPDATE events SET delivered_at_ms = ? WHERE seq = ?", (now, seq)
                )
            elif delivered_at_ms is not None:
                return removal.remove(connection, old), -1
            reached = seq
        return removal.remove(connection, old), reached if len(rows) == CHUNK else -1

    return job


def discard_oldest(transaction: Transaction) -> int:
    """Give up the `CHUNK` oldest pending events, counted under the size policy."""
    connection = transaction.connection
    rows = connection.exec_driver_sql(
        "SELECT seq, chain FROM events WHERE seq > (SELECT settled_through FROM sync_state) "
        "AND delivered_at_ms IS NULL AND dead_at_ms IS NULL ORDER BY seq LIMIT ?",
        (CHUNK,),
    ).all()
    removed = removal.remove(connection, [(seq, chain) for seq, chain in rows])
    account.discard(connection, account.BY_SIZE, removed)
    return removed


def give_back_pages(transaction: Transaction) -> None:
    """Return some free pages to the file system, so that the file shrinks."""
    # The pragma frees one page a step, and sqlite3 takes but one step of a statement that returns
    # no columns, whatever the number of pages asked for.
    for _ in range(CHUNK):
        transaction.connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")


def used_bytes(connection: Connection) -> int:
    """Return the bytes that the outbox's pages use, without those free for reuse."""
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    size = connection.exec_driver_sql("PRAGMA page_size").scalar_one()
    return int((pages - free) * size)

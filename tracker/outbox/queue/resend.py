"""Making settled events pending again, for a receiver that lost them or never got them."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.outbox.store.transaction import Transaction

_SETTLED_SINCE = "delivered_at_ms >= ? AND dead_at_ms IS NULL AND type GLOB ?"


def resend(since_ms: int, pattern: str = "*") -> Callable[[Transaction], int]:
    """Return the job that makes delivered events pending again; it returns how many.

    They are the events that are still stored here and were delivered or skipped from then on: the
    destination may be another one by now, or the setting, and otherwise they are skipped again.
    They keep their seq, and are sent before all that came after them. The account moves them to
    pending in the same transaction, so that it adds up at any moment.

    Args:
        since_ms: The time, Unix milliseconds.
        pattern: A type of events, or a prefix that ends in ``.*``.
    """

    def job(transaction: Transaction) -> int:
        connection = transaction.connection
        bound = (since_ms, pattern.replace("[", "[[]"))
        first, events, skipped = connection.exec_driver_sql(
            f"SELECT min(seq), count(*), count(dead_code) FROM events WHERE {_SETTLED_SINCE}", bound
        ).one()
        if not events:
            return 0
        connection.exec_driver_sql(
            f"UPDATE events SET delivered_at_ms = NULL, dead_code = NULL WHERE {_SETTLED_SINCE}",
            bound,
        )
        connection.exec_driver_sql(
            "UPDATE sync_state SET settled_through = min(settled_through, ?)", (first - 1,)
        )
        ledger.add(connection, ledger.DELIVERED, skipped - events)
        ledger.add(connection, ledger.SKIPPED, -skipped)
        return int(events)

    return job

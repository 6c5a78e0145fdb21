"""Making delivered events pending again, for a receiver that lost what it had acknowledged."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracker.outbox.store.transaction import Transaction

_DELIVERED_SINCE = (
    "delivered_at_ms >= ? AND dead_at_ms IS NULL AND dead_code IS NULL AND type GLOB ?"
)
"""Skipped events have a code: they would be skipped again."""


def resend(since_ms: int, pattern: str = "*") -> Callable[[Transaction], int]:
    """Return the job that makes delivered events pending again; it returns how many.

    They are the events that are still stored here and were delivered from then on. They keep their
    seq, and are sent before all that came after them. The account moves them from delivered to
    pending in the same transaction, so that it adds up at any moment.

    Args:
        since_ms: The time, Unix milliseconds.
        pattern: A type of events, or a prefix that ends in ``.*``.
    """

    def job(transaction: Transaction) -> int:
        connection = transaction.connection
        bound = (since_ms, pattern.replace("[", "[[]"))
        first = connection.exec_driver_sql(
            f"SELECT min(seq) FROM events WHERE {_DELIVERED_SINCE}", bound
        ).scalar()
        if first is None:
            return 0
        events: int = connection.exec_driver_sql(
            f"UPDATE events SET delivered_at_ms = NULL WHERE {_DELIVERED_SINCE}", bound
        ).rowcount
        connection.exec_driver_sql(
            "UPDATE sync_state SET settled_through = min(settled_through, ?)", (first - 1,)
        )
        ledger.add(connection, ledger.DELIVERED, -events)
        return events

    return job

"""Dead letters: events that the server refused for good, kept until an operator decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracker.outbox.store import discards, erasures, ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction


def retry(event_ids: Sequence[str] | None = None) -> Callable[[Transaction], int]:
    """Return the job that makes dead letters pending again: all of them, or those named."""

    def job(transaction: Transaction) -> int:
        connection = transaction.connection
        seqs = [seq for seq, *_ in _find(connection, event_ids)]
        for seq in seqs:
            connection.exec_driver_sql(
                "UPDATE events SET dead_at_ms = NULL, dead_code = NULL, dead_message = NULL "
                "WHERE seq = ?",
                (seq,),
            )
        if seqs:
            connection.exec_driver_sql(
                "UPDATE sync_state SET settled_through = min(settled_through, ?)", (seqs[0] - 1,)
            )
        ledger.add(connection, ledger.DEAD, -len(seqs))
        return len(seqs)

    return job


def discard(event_ids: Sequence[str] | None = None) -> Callable[[Transaction], int]:
    """Return the job that deletes dead letters, all or those named, and counts them as discarded.

    An ``events.discarded`` event names them to the receiver.

    Erasure events are kept as long as an event that they name is stored: without them, an erased
    event could not be distinguished from a changed one.
    """

    def job(transaction: Transaction) -> int:
        connection = transaction.connection
        found = _find(connection, event_ids)
        needed = erasures.still_needed(connection, [seq for seq, *_ in found])
        rows = [row for row in found if row[0] not in needed]
        if rows:
            discards.discard(transaction, ledger.BY_OPERATOR, rows)
            ledger.add(connection, ledger.DEAD, -len(rows))
        return len(rows)

    return job


def count(connection: Connection, through: int) -> int:
    """Return how many dead letters there are up to seq `through`."""
    return int(
        connection.exec_driver_sql(
            "SELECT count(*) FROM events WHERE dead_at_ms IS NOT NULL AND seq <= ?", (through,)
        ).scalar_one()
    )


def _find(connection: Connection, event_ids: Sequence[str] | None) -> list[tuple[int, str, str]]:
    if event_ids is None:
        rows = connection.exec_driver_sql(
            "SELECT seq, chain, type FROM events WHERE dead_at_ms IS NOT NULL ORDER BY seq"
        )
        return [(seq, chain, type_) for seq, chain, type_ in rows]
    found: list[Any] = []
    for event_id in dict.fromkeys(event_ids):
        found += connection.exec_driver_sql(
            "SELECT seq, chain, type FROM events WHERE dead_at_ms IS NOT NULL AND event_id = ?",
            (event_id,),
        ).all()
    return sorted((seq, chain, type_) for seq, chain, type_ in found)

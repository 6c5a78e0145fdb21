"""Removing rows on purpose, so that ``verify`` can distinguish it from tampering."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import time_ranges
from tracker.outbox.store import removed_digests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tracker.outbox.store.transaction import Transaction

GAP = "gap"
"""The kind of a gap's proof, which covers its first seq, its last seq and its chain value."""


def remove(transaction: Transaction, rows: Sequence[tuple[int, str]]) -> int:
    """Delete events given as (seq, chain) in ascending seq; return how many.

    Each gap is recorded with the chain value at its end, so that the next row still verifies, and
    with the proof that a process with the chain key has removed the events, if there is a key.
    """
    for first, last, chain in _runs(rows):
        removed_digests.keep(transaction.connection, first, last)
        transaction.connection.exec_driver_sql(
            "DELETE FROM events WHERE seq BETWEEN ? AND ?", (first, last)
        )
        removed_digests.drop_whole_tiles(transaction.connection, first, last)
        _note_gap(transaction, first, last, chain)
    time_ranges.remove_old(transaction.connection)
    return len(rows)


def _runs(rows: Sequence[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    """Yield (first seq, last seq, last chain) of each run of consecutive seqs."""
    start = 0
    for index, (seq, chain) in enumerate(rows):
        if index + 1 == len(rows) or rows[index + 1][0] != seq + 1:
            yield rows[start][0], seq, chain
            start = index + 1


def _note_gap(transaction: Transaction, first: int, last: int, chain: str) -> None:
    """Record first..last as removed, joined with adjacent gaps that this process could prove.

    Joined with any other gap, the proof would vouch for what somebody without the key has removed,
    and without a key it would be lost.
    """
    connection = transaction.connection
    before = connection.exec_driver_sql(
        "SELECT first_seq, last_seq, chain, proof FROM gaps WHERE first_seq < ? "
        "ORDER BY first_seq DESC LIMIT 1",
        (first,),
    ).first()
    after = connection.exec_driver_sql(
        "SELECT first_seq, last_seq, chain, proof FROM gaps WHERE first_seq = ?", (last + 1,)
    ).first()
    if after is not None and _is_proven(transaction, *after):
        connection.exec_driver_sql("DELETE FROM gaps WHERE first_seq = ?", (last + 1,))
        last, chain = after[1], after[2]
    if before is not None and before[1] == first - 1 and _is_proven(transaction, *before):
        first = before[0]
    connection.exec_driver_sql(
        "INSERT INTO gaps (first_seq, last_seq, chain, proof) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (first_seq) DO UPDATE SET last_seq = excluded.last_seq, "
        "chain = excluded.chain, proof = excluded.proof",
        (first, last, chain, transaction.prove(GAP, first, last, chain)),
    )


def _is_proven(transaction: Transaction, first: int, last: int, chain: str, proof: object) -> bool:
    """Return True if this process would have given a gap the proof that it has, which may be None.

    The values may be of any type: somebody may have written them by hand.
    """
    try:
        return transaction.prove(GAP, first, last, chain) == proof
    except (TypeError, ValueError):
        return False

"""Removing rows on purpose, so that ``verify`` can distinguish it from tampering."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker import time_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection


def remove(connection: Connection, rows: Sequence[tuple[int, str]]) -> int:
    """Delete events given as (seq, chain) in ascending seq; return how many.

    Each gap is recorded with the chain value at its end, so that the next row still verifies.
    """
    for first, last, chain in _runs(rows):
        connection.exec_driver_sql("DELETE FROM events WHERE seq BETWEEN ? AND ?", (first, last))
        _note_gap(connection, first, last, chain)
    time_ranges.remove_old(connection)
    return len(rows)


def _runs(rows: Sequence[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    """Yield (first seq, last seq, last chain) of each run of consecutive seqs."""
    start = 0
    for index, (seq, chain) in enumerate(rows):
        if index + 1 == len(rows) or rows[index + 1][0] != seq + 1:
            yield rows[start][0], seq, chain
            start = index + 1


def _note_gap(connection: Connection, first: int, last: int, chain: str) -> None:
    """Record first..last as removed, merged with adjacent gaps."""
    before = connection.exec_driver_sql(
        "SELECT first_seq, last_seq FROM gaps WHERE first_seq < ? ORDER BY first_seq DESC LIMIT 1",
        (first,),
    ).first()
    after = connection.exec_driver_sql(
        "SELECT last_seq, chain FROM gaps WHERE first_seq = ?", (last + 1,)
    ).first()
    if after is not None:
        connection.exec_driver_sql("DELETE FROM gaps WHERE first_seq = ?", (last + 1,))
        last, chain = after
    if before is not None and before[1] == first - 1:
        first = before[0]
    connection.exec_driver_sql(
        "INSERT INTO gaps (first_seq, last_seq, chain) VALUES (?, ?, ?) "
        "ON CONFLICT (first_seq) DO UPDATE SET last_seq = excluded.last_seq, "
        "chain = excluded.chain",
        (first, last, chain),
    )

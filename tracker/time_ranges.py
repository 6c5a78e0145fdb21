"""Which events can be of a period: an index of times with one row for some 256 events.

Events are nearly in the order of their times, and clocks that leap only make a row's range wider.
An index with an entry for each event would write another page in each commit, a ninth of all that
a call writes.
"""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy import Connection

EVENTS = 256
"""The write that stores a seq which this divides adds a row, for all events since the last one."""
_END = 2**63 - 1

# Each row covers the seqs after the previous row's `last_seq`, so the rows have no holes.
_ADD = """
INSERT INTO time_ranges (last_seq, earliest_ms, latest_ms)
SELECT ?, min(timestamp_ms), max(timestamp_ms) FROM events
WHERE seq > (SELECT coalesce(max(last_seq), 0) FROM time_ranges) AND seq <= ?
"""
_REMOVE = "DELETE FROM time_ranges WHERE last_seq < (SELECT min(seq) FROM events)"


def add(driver: sqlite3.Connection, first_seq: int, last_seq: int) -> None:
    """Add the row that is due, if one is, after events of these seqs were inserted."""
    if last_seq // EVENTS > (first_seq - 1) // EVENTS:
        through = last_seq // EVENTS * EVENTS
        driver.execute(_ADD, (through, through))


def remove_old(connection: Connection) -> None:
    """Remove the rows for events before the first one that is still stored."""
    connection.exec_driver_sql(_REMOVE)


def read(connection: Connection) -> list[tuple[int, int | None, int | None]]:
    """Return all rows: last seq, earliest and latest time; in descending order."""
    query = "SELECT last_seq, earliest_ms, latest_ms FROM time_ranges ORDER BY last_seq DESC"
    return [(seq, first, last) for seq, first, last in connection.exec_driver_sql(query)]


def first_seq(since_ms: int) -> str:
    """Return the SQL for the first seq that an event of a time, Unix milliseconds, or later has.

    Events of other times may come after it too.
    """
    recent = f"SELECT min(last_seq) FROM time_ranges WHERE latest_ms >= {since_ms:d}"
    return (
        "(SELECT coalesce(max(last_seq), 0) + 1 FROM time_ranges "
        f"WHERE last_seq < coalesce(({recent}), {_END}))"
    )


def last_seq(until_ms: int) -> str:
    """Return the SQL for the last seq that an event before a time, Unix milliseconds, has.

    Events of other times may come before it too.
    """
    covered = "SELECT coalesce(max(last_seq), 0) FROM time_ranges"
    before = f"SELECT max(last_seq) FROM time_ranges WHERE earliest_ms < {until_ms:d}"
    newest = f"SELECT max(seq) FROM events WHERE seq > ({covered}) AND timestamp_ms < {until_ms:d}"
    return f"(SELECT max(coalesce(({before}), 0), coalesce(({newest}), 0)))"

"""`FoundRows`: which of the rows found in a damaged outbox are the events that were logged.

A damaged outbox may have more rows than fit into memory. For each row, its place, its seq and its
event id are kept in a temporary SQLite database, which is written to the disk as it grows (about
100 bytes a row), if there is a place for temporary files; the rows themselves are read again when
they are needed.
"""

from __future__ import annotations

import sqlite3
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from tracker.erasure import ERASED, named_events
from tracker.events import COMPLIANCE_ERASED, Event

if TYPE_CHECKING:
    from collections.abc import Iterator

_TABLES = """
CREATE TABLE found (number INTEGER PRIMARY KEY, page INTEGER, at INTEGER, seq INTEGER,
                    event_id TEXT, intact INTEGER, erased INTEGER, sealed INTEGER,
                    delivered INTEGER);
CREATE TABLE named (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE gaps (first_seq INTEGER PRIMARY KEY, last_seq INTEGER);
"""

# An event that an erasure names is carried over without its data or not at all, because an old page
# may still have the data. The same holds if what an erasure left of it is found, which its digest
# proves. Without that, a row that is marked as erased is not carried over either if the event that
# named it is lost.
_CHOOSE = """
CREATE INDEX found_ids ON found (event_id);
CREATE INDEX found_seqs ON found (seq);
CREATE TABLE marked (event_id TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT OR IGNORE INTO named SELECT event_id FROM found WHERE sealed;
INSERT OR IGNORE INTO marked SELECT event_id FROM found
    WHERE erased AND NOT intact AND event_id IS NOT NULL AND event_id NOT IN named;
CREATE TABLE chosen (seq INTEGER, number INTEGER, PRIMARY KEY (seq, number)) WITHOUT ROWID;
INSERT INTO chosen SELECT seq, min(number) FROM found
    WHERE event_id IS NOT NULL AND event_id NOT IN marked
      AND CASE WHEN event_id IN named THEN erased ELSE intact END
    GROUP BY event_id;
"""

# A seq without a neighbour may come from a damaged byte.
_LAST = """
WITH ends (seq) AS (SELECT 0 UNION SELECT seq FROM chosen UNION SELECT last_seq FROM gaps)
SELECT coalesce((SELECT max(seq) FROM ends WHERE seq - 1 IN ends), (SELECT max(seq) FROM ends))
"""


class Place(NamedTuple):
    """Where a row was found, and its seq there."""

    page: int
    at: int
    seq: int


class FoundRows:
    """The rows found, in order of preference: of two rows with the same event, the first counts.

    Owns a temporary database. `add` all rows, call `choose`, then query. All methods raise
    `sqlite3.Error` if the disk is full.

    Args:
        in_memory: Whether to use no disk space.
    """

    def __init__(self, *, in_memory: bool = False) -> None:
        if not in_memory:
            try:
                tempfile.gettempdir()
            except FileNotFoundError:  # as in a container that may write to its data folder only
                in_memory = True
        self._db = sqlite3.connect(":memory:" if in_memory else "", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.executescript(_TABLES)
        self._db.execute("BEGIN")

    def close(self) -> None:
        """Drop everything."""
        self._db.close()

    def add(self, place: Place, event: Event, *, delivered: bool) -> None:
        """Record a row, whose values may be of any type."""
        intact = event.is_intact
        self._db.execute(
            "INSERT INTO found (page, at, seq, event_id, intact, erased, sealed, delivered) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *place,
                event.event_id if isinstance(event.event_id, str) else None,
                intact,
                event.data == ERASED,
                intact and event.sealed is not None,
                delivered,
            ),
        )
        if intact:
            self.note_erasures(event)

    def note_erasures(self, event: Event) -> None:
        """Record which events an intact event names as erased, if it is an erasure event."""
        if event.type == COMPLIANCE_ERASED:
            names = [(name,) for name in named_events(event.data)]
            self._db.executemany("INSERT OR IGNORE INTO named VALUES (?)", names)

    def add_gap(self, first: int, last: int) -> None:
        """Record that events were removed on purpose."""
        self._db.execute("INSERT OR IGNORE INTO gaps VALUES (?, ?)", (first, last))

    def choose(self) -> None:
        """Choose the whole rows: intact, or erased and named by an erasure; each event once."""
        self._db.executescript(_CHOOSE)

    def chosen(self) -> Iterator[Place]:
        """Yield the places of the whole rows in order of seq."""
        rows = self._db.execute(
            "SELECT page, at, chosen.seq FROM chosen JOIN found USING (number) "
            "ORDER BY chosen.seq, number"
        )
        yield from map(Place._make, rows)

    def count(self) -> int:
        """Return how many events were chosen."""
        return self._number("SELECT count(*) FROM chosen")

    def undelivered(self) -> int:
        """Return how many of them are not delivered."""
        return self._number(
            "SELECT count(*) FROM chosen JOIN found USING (number) WHERE NOT delivered"
        )

    def broken(self) -> int:
        """Return how many seqs have rows, but no whole one."""
        return self._number(
            "SELECT count(DISTINCT seq) FROM found WHERE seq NOT IN (SELECT seq FROM chosen)"
        )

    def removed(self) -> int:
        """Return how many events were removed on purpose."""
        return self._number(
            "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM gaps "
            "WHERE last_seq >= first_seq"
        )

    def last_seq(self) -> int:
        """Return the newest seq that is known."""
        return self._number(_LAST)

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

"""`Transaction`: the open write transaction, as jobs use it."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from tracker import canonical, time_ranges
from tracker.events import Event
from tracker.outbox.schema.tables import events as events_table
from tracker.outbox.store import chain_tail, ledger

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from tracker.outbox.sqlite.engine import OutboxConnection
    from tracker.outbox.store.chain_tail import Head

_COLUMNS = ("seq", *Event._fields, "chain")

# Built once, in the order of Event's fields: Core's execute() would make a call take twice as long.
INSERT = (
    f"INSERT INTO events ({', '.join(events_table.c[name].name for name in _COLUMNS)}) "  # noqa: S608 - our own names
    f"VALUES ({', '.join('?' * len(_COLUMNS))})"
)
"""Stores one event: its seq, the fields of `Event`, and its chain value."""


def driver_of(connection: Connection) -> OutboxConnection:
    """Return sqlite3's own connection under SQLAlchemy's."""
    return cast("OutboxConnection", connection.connection.driver_connection)


class Transaction:
    """The open write transaction that a job runs in. Used by the leading thread only.

    Attributes:
        head: The tail of the chain, with every event appended so far.
        changed: Whether it does more than append events.
    """

    def __init__(
        self,
        connection: Connection,
        driver: sqlite3.Connection,
        head: Head,
        chain_key: bytes | None,
    ) -> None:
        self._connection = connection
        self._driver = driver
        self._chain_key = chain_key
        self._rows: list[tuple[Any, ...]] = []
        self.head = head
        self.changed = False

    @property
    def connection(self) -> Connection:
        """The connection, after inserting every event appended so far."""
        self.changed = True
        self.flush()
        return self._connection

    def touch(self) -> None:
        """Make the commit record the tail of the chain in the account."""
        self.changed = True

    def anchor(self) -> None:
        """Record the tail of the chain in the account, and prove the account, if there is a key."""
        ledger.note_stored(self.connection, self.head[0])
        entries = self._driver.execute(ledger.ENTRIES).fetchall()
        try:
            proof = self.prove(ledger.ACCOUNT, *chain.from_iterable(entries))
        except (TypeError, ValueError):  # written by hand: values of other types prove nothing
            proof = None
        self._driver.execute(ledger.NOTE_PROOF, (proof,))

    def prove(self, kind: str, *values: str | int) -> str | None:
        """Return the proof that a process with the chain key wrote these values into this outbox.

        Returns None if there is no key.

        Args:
            kind: What the values are, so that no proof serves for anything else.
            values: The values.
        """
        if self._chain_key is None:
            return None
        (outbox_id,) = self._driver.execute("SELECT outbox_id FROM identity").fetchone()
        return canonical.proof(self._chain_key, kind, outbox_id, *values)

    def link(self, previous: str, digest: str) -> str:
        """Return the chain value that this process would put after `previous` and `digest`."""
        return canonical.chain(previous, digest, self._chain_key)

    def append(self, event: Event) -> int:
        """Give `event` the next seq and its link in the chain; return the seq."""
        return self._append(event, chain_tail.after(self.head, event, self._chain_key))

    def append_missing(self, event: Event) -> None:
        """Append `event` unless it is stored already, by a call interrupted after its commit."""
        if not self.holds(event.event_id):
            self.append(event)

    def append_all_missing(self, events: Iterable[Event]) -> None:
        """Append those of `events` that are not stored yet."""
        for event in events:
            self.append_missing(event)

    def holds(self, event_id: str) -> bool:
        """Return True if the event is stored; events appended here count only once flushed."""
        found = self._driver.execute("SELECT 1 FROM events WHERE event_id = ?", (event_id,))
        return found.fetchone() is not None

    def append_unproven(self, event: Event) -> int:
        """Append an event from a damaged or deleted outbox, with a link that marks it unproven."""
        if self._chain_key is None:
            return self.append(event)
        seq, chain = self.head
        chain = canonical.unproven_chain(chain, event.digest, self._chain_key)
        return self._append(event, (seq + 1, chain))

    def _append(self, event: Event, place: Head) -> int:
        self.head = place
        self._rows.append((place[0], *event, place[1]))
        return place[0]

    def flush(self) -> None:
        """Insert the rows appended so far."""
        rows, self._rows = self._rows, []
        if len(rows) == 1:
            self._driver.execute(INSERT, rows[0])
        elif rows:
            self._driver.executemany(INSERT, rows)
        if rows:
            time_ranges.add(self._driver, rows[0][0], rows[-1][0])

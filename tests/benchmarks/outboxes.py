"""Outboxes to measure on: made, filled, and copied to the bare tables they are held against."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

from tests.benchmarks.messages import messages
from tracker import APIConfig
from tracker.events import MESSAGE_LOGGED, make_event
from tracker.outbox.outbox import Outbox
from tracker.outbox.queue import batches, sync_state
from tracker.outbox.schema import tables
from tracker.outbox.sqlite.engine import SYNCHRONOUS, WAL_BYTES
from tracker.sync.destination import Upload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tracker.events import Event
    from tracker.outbox.store.transaction import Transaction

NOBODY = "http://127.0.0.1:9"
"""A server that is away: nothing listens on the discard port."""

Row = tuple[Any, ...]


def config(folder: Path, name: str = "outbox", **settings: Any) -> APIConfig:
    """Return the settings of an outbox in `folder`; by default its server is away."""
    path = folder / f"{name}.sqlite3"
    chosen = {"api_key": "k", "base_url": NOBODY, "client_id": "benchmark", "outbox_path": path}
    return APIConfig(**{**chosen, **settings})


def fill(settings: APIConfig, count: int, first: int = 0) -> None:
    """Store so many events in an outbox, whole and chained, many in a commit."""
    made = events(count, first)
    outbox = Outbox(settings)

    def job(transaction: Transaction) -> None:
        for event in islice(made, 5_000):
            transaction.append(event)

    for _ in range(0, count, 5_000):
        outbox.run(job)
    outbox.close()


def events(count: int, first: int = 0) -> Iterator[Event]:
    """Yield the events that so many messages become."""
    for message in messages(count, first):
        data = {"role": message.role, "content": message.content}
        yield make_event(MESSAGE_LOGGED, data, session_id=message.session_id)


def bare_rows(count: int, first: int = 0) -> list[Row]:
    """Return rows for a bare table, made without an outbox: each gets the next seq."""
    names = [column.name for column in tables.events.columns]
    return [
        tuple(event.digest if name == "chain" else getattr(event, name, None) for name in names)
        for event in events(count, first)
    ]


def uploads_of(settings: APIConfig, max_events: int = 500) -> list[Upload]:
    """Return all batches that are pending in an outbox, as its uploader would send them."""
    found = []
    outbox = Outbox(settings)
    while True:
        with outbox.reading() as connection:
            batch = batches.next_batch(connection, max_events, settings.batch_max_bytes - 1024)
        if not batch.rows:
            break
        found.append(Upload([r.event_id for r in batch.rows], [r.wire for r in batch.rows]))
        outbox.run(sync_state.write_state(settled_through=batch.rows[-1].seq))
    outbox.run(sync_state.write_state(settled_through=0))  # nothing was sent: all is pending again
    outbox.close()
    return found


class Bare:
    """A bare `sqlite3` table like the outbox's own, and nothing around it: the limit of a call.

    Same columns, same indexes, same journal, durability and checkpoints; a row comes ready-made.

    Args:
        outbox: The outbox whose table is copied, and whose rows can be.
        path: The new database.
        durability: As `APIConfig.durability`.
        indexed: False leaves the secondary indexes out, but for the unique event id.
    """

    def __init__(self, outbox: Path, path: Path, durability: str, *, indexed: bool = True) -> None:
        self._source = sqlite3.connect(outbox, check_same_thread=False)
        self._through = 0
        made = self._source.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = 'events' AND sql NOT NULL "
            "AND type IN ('table', 'index') ORDER BY type DESC"
        ).fetchall()
        new = not path.exists()
        self._connection = connect(path, durability)
        for (statement,) in made if new else ():
            if indexed or statement.startswith("CREATE TABLE"):
                self._connection.execute(statement)
        self._connection.commit()
        self._names = [name for _, name, *_ in self._source.execute("PRAGMA table_info(events)")]
        self._insert = f"INSERT INTO events VALUES ({', '.join('?' * len(self._names))})"  # noqa: S608 - no value in it

    def new_rows(self) -> list[Row]:
        """Return the rows that the outbox got since the last time."""
        found = self._source.execute(
            f"SELECT {', '.join(self._names)} FROM events WHERE seq > ? ORDER BY seq",  # noqa: S608 - the table's own names
            (self._through,),
        ).fetchall()
        if found:
            self._through = found[-1][0]
        return found

    def insert(self, row: Row) -> None:
        """Insert one row and commit it."""
        self._connection.execute(self._insert, row)
        self._connection.commit()

    def close(self) -> None:
        """Close both databases."""
        self._source.close()
        self._connection.close()


def connect(path: Path, durability: str) -> sqlite3.Connection:
    """Return a connection to a bare database, set up as the outbox's writer is."""
    connection = sqlite3.connect(path, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={SYNCHRONOUS[durability]}")
    connection.execute(f"PRAGMA wal_autocheckpoint={WAL_BYTES // 4096}")
    return connection


def count(path: Path, table: str = "events") -> int:
    """Return how many rows a database holds."""
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - the suite's own names
        return found

"""The state of an outbox, for ``tracker-sync status``. Cheap in an outbox of any size."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracker.health import Health
from tracker.outbox.files import paths, swap
from tracker.outbox.maintenance import retention
from tracker.outbox.queue import sync_state
from tracker.outbox.queue.sync_state import SyncState
from tracker.outbox.schema import errors, tables
from tracker.outbox.store import identity, ledger
from tracker.outbox.store.ledger import Account

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from tracker.outbox.store.identity import Owner
    from tracker.outbox.store.memory_buffer import MemoryBuffer

_OLDEST_PENDING = f"""
SELECT seq, timestamp_ms FROM events
WHERE seq > ? AND {tables.PENDING} ORDER BY seq LIMIT 1
"""


@dataclass(frozen=True)
class OutboxStatus:
    """The state of an outbox at one moment. Without arguments: one that does not exist yet.

    Attributes:
        owner: Its id, client id and base URL; None if there is no outbox.
        account: Where every accepted event is now.
        sync: The state of uploading.
        last_seq: The newest seq ever assigned.
        oldest_pending_seq: The first pending event, or None.
        oldest_pending_ms: When that event was logged, Unix milliseconds, or None.
        used_bytes: Bytes of the pages in use; the files may be larger.
        revision: The schema revision, or None.
    """

    owner: Owner | None = None
    account: Account = field(default_factory=Account)
    sync: SyncState = field(default_factory=SyncState)
    last_seq: int = 0
    oldest_pending_seq: int | None = None
    oldest_pending_ms: int | None = None
    used_bytes: int = 0
    revision: str | None = None


def read(connection: Connection) -> OutboxStatus:
    """Return the state of the outbox: all figures from one snapshot, none by counting rows."""
    connection.exec_driver_sql("BEGIN")
    try:
        book, sync = ledger.read(connection), sync_state.read_state(connection)
        oldest = None
        if book.pending:  # otherwise the search would pass over every row
            oldest = connection.exec_driver_sql(_OLDEST_PENDING, (sync.settled_through,)).first()
        return OutboxStatus(
            owner=identity.read(connection),
            account=book,
            sync=sync,
            last_seq=ledger.last_seq(connection),
            oldest_pending_seq=None if oldest is None else oldest[0],
            oldest_pending_ms=None if oldest is None else oldest[1],
            used_bytes=retention.used_bytes(connection),
            revision=revision(connection),
        )
    finally:
        connection.exec_driver_sql("ROLLBACK")


_STAMPED = (
    "SELECT entry, events FROM account ORDER BY entry",
    "SELECT * FROM sync_state",
    "SELECT head_seq, witness, renewed_ms FROM tree",
    "SELECT count(*), sum(first_seq), sum(last_seq) FROM gaps",
    "SELECT min(seq) FROM events",
    "SELECT max(seq) FROM events",
    "SELECT outbox_id, client_id, base_url FROM identity",
    "PRAGMA schema_version",
)


def stamp(connection: Connection) -> str:
    """Return a short text that is another one whenever reads of the outbox may answer otherwise.

    Whatever changes a stored event is itself an event, or changes the account, the state of
    uploading or the gaps; only what is done to the file by other programs is not noticed. Takes the
    same time in an outbox of any size.
    """
    connection.exec_driver_sql("BEGIN")
    try:
        seen = [connection.exec_driver_sql(query).all() for query in _STAMPED]
    finally:
        connection.exec_driver_sql("ROLLBACK")
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:32]


def health(
    seen: OutboxStatus,
    buffer: MemoryBuffer,
    path: Path,
    durability: str,
    error: str | None,
    *,
    rescued: int = 0,
) -> Health:
    """Return the state of the outbox, including the events in memory.

    Args:
        seen: The state when the outbox was last read.
        buffer: The events in memory.
        path: The outbox.
        durability: The one in force.
        error: Why the outbox cannot be written or read, or None.
        rescued: Number of events in memory that were rescued from a deleted outbox.
    """
    log_bytes = 0
    damaged_sets: tuple[Path, ...] = ()
    try:
        log_bytes, damaged_sets = paths.log_bytes(path), tuple(swap.damaged_sets(path))
    except OSError as trouble:  # its folder may be forbidden, or descriptors have run out
        error = error or str(errors.explain(path, trouble))
    book, sync = seen.account, seen.sync
    discarded = dict(book.discarded)
    uncounted = dict(buffer.discarded)
    for reason, events in uncounted.items():
        discarded[reason] = discarded.get(reason, 0) + events
    age = None
    if seen.oldest_pending_ms is not None:
        age = max(0.0, time.time() - seen.oldest_pending_ms / 1000)
    return Health(
        durability=durability,
        pending=book.pending,
        oldest_pending_age=age,
        in_memory=len(buffer) + rescued,
        accepted=book.accepted + sum(uncounted.values()),
        delivered=book.delivered,
        dead=book.dead,
        discarded=discarded,
        skipped=book.skipped,
        last_success_ms=sync.last_success_ms,
        last_error=sync.last_error,
        last_error_ms=sync.last_error_ms,
        paused_because=sync.paused_because if book.pending else None,
        waits_because=sync.waits_because if book.pending else None,
        waits_until_ms=sync.next_attempt_ms if book.pending and sync.waits_because else None,
        warning=sync.warning,
        storage_error=error,
        log_bytes=log_bytes,
        damaged_sets=damaged_sets,
    )


def revision(connection: Connection) -> str | None:
    """Return the schema revision of the file."""
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def file_sizes(path: Path) -> dict[str, int]:
    """Return the sizes of the outbox file and of SQLite's files beside it, if they exist."""
    sizes = {}
    for file in (path, paths.log(path), paths.index(path)):
        try:
            sizes[file.name] = file.stat().st_size
        except FileNotFoundError:  # SQLite removes the other two with the last connection
            continue
    return sizes

"""Checkpoints: events that hold a signed head of the tree over everything before them."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, NamedTuple

from tracker import canonical
from tracker.events import INTEGRITY_CHECKPOINT, make_event
from tracker.evidence import heads
from tracker.evidence.tree import Tree
from tracker.outbox.integrity import tree
from tracker.outbox.integrity.tree import StoredTree
from tracker.outbox.store import identity, ledger, removed_digests

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tracker.evidence.keys import Signer
    from tracker.outbox.store.transaction import Transaction

_EVENTS = 1_000
"""So many new events are covered by a checkpoint at once."""


class Witness(NamedTuple):
    """The newest head that the receiver has signed: its size, its root in hex, and the note."""

    size: int
    root: str
    note: str


def is_due(connection: Connection, seconds: float) -> bool:
    """Return True if a checkpoint is due: after 1,000 events, or so many seconds with any.

    Checkpoints themselves do not count, so an idle outbox comes to rest.
    """
    row = connection.exec_driver_sql(
        "SELECT coalesce(head_seq, 0), coalesce(head_ms, created_at_ms) "
        "FROM identity LEFT JOIN tree"
    ).one()
    head_seq, head_ms = row
    new = ledger.last_seq(connection) - head_seq
    # A clock that was set back must not put it off.
    recent = 0 <= time.time_ns() // 1_000_000 - head_ms < seconds * 1_000
    return new >= _EVENTS or (new > 0 and not recent)


def write(signer: Signer | None, seconds: float) -> Callable[[Transaction], bool]:
    """Return the job that hashes the next events and, if these are all, logs a checkpoint.

    It logs none if it is no longer due: another thread or process may have logged one since.
    It returns False if there are more events to hash: then it has to be run again.

    Raises:
        TreeError: by the job, if the stored hashes are damaged.
    """

    def job(transaction: Transaction) -> bool:
        if not tree.extend(transaction):
            return False
        connection = transaction.connection
        if not is_due(connection, seconds):
            return True
        outbox_id = identity.read(connection).outbox_id
        frontier = tree.frontier(connection)
        seen = witness(connection)
        old_size = 0 if seen is None else min(seen.size, frontier.size)
        hashes = Tree(StoredTree(connection), frontier.size)
        data = heads.claim(outbox_id, hashes, signer, old_size)
        data["gaps"] = digest_of_gaps(connection)
        if unknown := tree.unknown_ranges(connection):
            data["unknown"] = unknown
        event = make_event(INTEGRITY_CHECKPOINT, data)
        seq = transaction.append(event)
        transaction.connection.exec_driver_sql(
            "UPDATE tree SET head_seq = ?, head_ms = ?, unknown = NULL", (seq, event.timestamp_ms)
        )
        return True

    return job


def digest_of_gaps(connection: Connection) -> str:
    """Return the SHA-256 over all recorded gaps, so that a later one shows as later."""
    rows = connection.exec_driver_sql(
        "SELECT first_seq, last_seq, chain FROM gaps ORDER BY first_seq"
    )
    return hashlib.sha256(canonical.encode([list(row) for row in rows]).encode()).hexdigest()


def witness(connection: Connection) -> Witness | None:
    """Return the newest head that the receiver has signed, or None."""
    stored = connection.exec_driver_sql("SELECT witness FROM tree").scalar()
    try:
        size, root, note = json.loads(stored or "[]")
    except (ValueError, TypeError):  # there is none, or it was written by hand
        return None
    fits = type(size) is int and size >= 0 and isinstance(root, str) and isinstance(note, str)
    return Witness(size, root, note) if fits else None


def note_witness(connection: Connection, seen: Witness) -> bool:
    """Store a head that the receiver has signed; return False if it is not one of this tree.

    Raises:
        TreeError: if the stored hashes are damaged.
    """
    before = witness(connection)
    if seen == before:
        return True
    size = tree.frontier(connection).size
    if seen.size > size or Tree(StoredTree(connection), seen.size).root().hex() != seen.root:
        return False
    connection.exec_driver_sql("UPDATE tree SET witness = ?", (json.dumps(list(seen)),))
    if before is not None:
        removed_digests.drop_whole_tiles(connection, before.size, before.size)
    return True

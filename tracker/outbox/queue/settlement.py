"""Recording what became of a batch: delivered, or dead letters."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tracker.outbox.queue.batches import Batch, Row, pending_between
from tracker.outbox.queue.sync_state import ROLLED_BACK
from tracker.outbox.schema import tables
from tracker.outbox.store import identity, ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction

DAMAGED = "damaged"
"""Code of a dead letter whose row does not match its digest."""


_PENDING_AMONG = f"""
SELECT event_id, seq FROM events
WHERE event_id IN (SELECT value FROM json_each(?)) AND {tables.PENDING}
ORDER BY seq
"""
_DAY_MS = 86_400_000
# A warning that led to a new outbox id, under which no receipt warns, stays for a day.
_WARN = """
UPDATE sync_state SET warning =
  coalesce(?, CASE WHEN (SELECT renewed_ms FROM tree) > ? THEN warning END)
"""


@dataclass(frozen=True)
class DeadLetter:
    """Why one event of a batch will not be sent again."""

    seq: int
    code: str
    message: str


@dataclass(frozen=True)
class Remarks:
    """What a receipt says of the outbox as a whole.

    Attributes:
        warning: What it warns of, in one word, or empty.
        highest_seq: The highest seq that the receiver has, or None if it does not say.
    """

    warning: str = ""
    highest_seq: int | None = None


def settle(
    batch: Batch,
    dead: Sequence[DeadLetter] = (),
    remarks: Remarks | None = None,
    skipped: Collection[str] = (),
) -> Callable[[Transaction], int]:
    """Return the job that records the receipt of a batch: delivered, except for the `dead`.

    The job returns how many events it marked as delivered.

    Args:
        batch: The batch.
        dead: Those of its events that the receiver refused for good.
        remarks: What else the receipt says; None if there is none.
        skipped: The ids of those of its events that were not sent, as a setting says.
    """

    def job(transaction: Transaction) -> int:
        connection = transaction.connection
        if identity.read(connection).outbox_id == batch.outbox_id:
            here, letters = batch, dead
            if remarks is not None:
                _note_warning(connection, _warning(transaction, remarks))
        else:
            here, letters = _find_by_id(connection, batch, dead)
        _mark_skipped(connection, [row.seq for row in here.rows if row.event_id in skipped])
        delivered, _ = _record(connection, here, letters)
        _note_success(connection, delivered, goes_on=True)
        return delivered

    return job


def settle_late(
    batch: Batch, dead: Sequence[DeadLetter] = (), remarks: Remarks | None = None
) -> Callable[[Transaction], tuple[int, int]]:
    """Return the job that records a receipt that came by hand, perhaps long after the batch left.

    As `settle`, with two differences. The events are those of the same id, whatever their seq: the
    outbox may be an older copy, or have another id by now. And a receipt without a warning ends
    neither an earlier warning nor a pause: newer ones may have come over the network.

    The job returns how many events it marked as delivered, and how many became dead letters.
    """

    def job(transaction: Transaction) -> tuple[int, int]:
        connection = transaction.connection
        if remarks is not None and identity.read(connection).outbox_id == batch.outbox_id:
            warning = _warning(transaction, remarks)
            if warning is not None:
                _note_warning(connection, warning)
        counts = _record(connection, *_find_by_id(connection, batch, dead))
        _note_success(connection, counts[0], goes_on=ledger.read(connection).pending == 0)
        return counts

    return job


def _record(connection: Connection, batch: Batch, letters: Sequence[DeadLetter]) -> tuple[int, int]:
    """Mark the pending events of a batch; return how many were delivered, and how many buried."""
    buried = mark_dead(connection, letters)
    gone = {letter.seq for letter in letters}
    delivered = _mark_delivered(connection, [r.seq for r in batch.rows if r.seq not in gone])
    ledger.add(connection, ledger.DELIVERED, delivered)
    _advance(connection, batch.through)
    return delivered, buried


def _note_success(connection: Connection, delivered: int, *, goes_on: bool) -> None:
    """Note the time of a delivery; if uploading `goes_on`, that it is not paused any more."""
    connection.exec_driver_sql(
        "UPDATE sync_state SET next_attempt_ms = CASE WHEN ? THEN NULL ELSE next_attempt_ms END, "
        "paused_because = CASE WHEN ? THEN NULL ELSE paused_because END, "
        "last_success_ms = CASE WHEN ? THEN ? ELSE last_success_ms END",
        (goes_on, goes_on, delivered > 0, time.time_ns() // 1_000_000),
    )


def _warning(transaction: Transaction, remarks: Remarks) -> str | None:
    if remarks.warning:
        return remarks.warning
    return ROLLED_BACK if (remarks.highest_seq or 0) > transaction.head[0] else None


def _note_warning(connection: Connection, warning: str | None) -> None:
    connection.exec_driver_sql(_WARN, (warning, time.time_ns() // 1_000_000 - _DAY_MS))


def _find_by_id(
    connection: Connection, batch: Batch, dead: Sequence[DeadLetter]
) -> tuple[Batch, list[DeadLetter]]:
    """Return what is still pending of them, with the seqs that the events of these ids have here.

    The batch reaches as far as the outbox: earlier events may be settled later than others.
    """
    ids = {row.seq: row.event_id for row in batch.rows}
    found = connection.exec_driver_sql(_PENDING_AMONG, (json.dumps([*ids.values()]),)).all()
    seqs: dict[str, int] = {each.event_id: each.seq for each in found}
    rows = [Row(seq, event_id, b"") for event_id, seq in found]
    letters = [
        replace(letter, seq=seqs[ids[letter.seq]]) for letter in dead if ids[letter.seq] in seqs
    ]
    return replace(batch, after=ledger.last_seq(connection), rows=rows, damaged=()), letters


def set_aside(batch: Batch, letters: Sequence[DeadLetter]) -> Callable[[Transaction], None]:
    """Return the job that makes dead letters of events in a batch that must not be sent.

    If the outbox was replaced meanwhile, it does nothing: damaged rows were not carried over, and
    their seqs belong to other events now.
    """

    def job(transaction: Transaction) -> None:
        connection = transaction.connection
        if identity.read(connection).outbox_id == batch.outbox_id:
            mark_dead(connection, letters)
            _advance(connection, letters[-1].seq)

    return job


def _advance(connection: Connection, through: int) -> None:
    """Move `settled_through` up to `through`, but not past a pending event.

    An operator's retry may have made an earlier event pending while the batch was under way.
    """
    connection.exec_driver_sql(
        "UPDATE sync_state SET settled_through = coalesce("
        "(SELECT min(seq) - 1 FROM events WHERE seq > settled_through AND seq <= ? "
        f"AND {tables.PENDING}), max(settled_through, ?))",
        (through, through),
    )


def _mark_delivered(connection: Connection, seqs: Sequence[int]) -> int:
    if not seqs:
        return 0
    now = time.time_ns() // 1_000_000
    first, last = seqs[0], seqs[-1]
    # The usual case: the batch is all that is pending in its range.
    if pending_between(connection, first, last) == list(seqs):
        changed = connection.exec_driver_sql(
            f"UPDATE events SET delivered_at_ms = ? WHERE seq BETWEEN ? AND ? AND {tables.PENDING}",
            (now, first, last),
        ).rowcount
        return int(changed)
    changed = 0
    for seq in seqs:
        changed += connection.exec_driver_sql(
            f"UPDATE events SET delivered_at_ms = ? WHERE seq = ? AND {tables.PENDING}",
            (now, seq),
        ).rowcount
    return changed


def _mark_skipped(connection: Connection, seqs: Sequence[int]) -> None:
    """Settle pending events that were not sent. They stay as long as delivered ones do."""
    now = time.time_ns() // 1_000_000
    marked = 0
    for seq in seqs:
        marked += connection.exec_driver_sql(
            "UPDATE events SET delivered_at_ms = ?, dead_code = ? "
            f"WHERE seq = ? AND {tables.PENDING}",
            (now, tables.SKIPPED, seq),
        ).rowcount
    ledger.add(connection, ledger.SKIPPED, marked)


def mark_dead(connection: Connection, letters: Sequence[DeadLetter]) -> int:
    """Make dead letters of pending events: they are kept, not sent, and hold up no other event.

    Return how many of them were pending.
    """
    now = time.time_ns() // 1_000_000
    buried = 0
    for letter in letters:
        buried += connection.exec_driver_sql(
            "UPDATE events SET dead_at_ms = ?, dead_code = ?, dead_message = ? "
            f"WHERE seq = ? AND {tables.PENDING}",
            (now, letter.code, letter.message, letter.seq),
        ).rowcount
    ledger.add(connection, ledger.DEAD, buried)
    return buried


def recount(transaction: Transaction) -> int:
    """Compute `settled_through` from the rows, store it, and return it.

    A safety net that costs a scan, in case the number of pending events and the place where they
    should be ever disagree.
    """
    connection = transaction.connection
    first = connection.exec_driver_sql(
        f"SELECT min(seq) FROM events WHERE {tables.PENDING}"
    ).scalar()
    settled = ledger.last_seq(connection) if first is None else first - 1
    connection.exec_driver_sql("UPDATE sync_state SET settled_through = ?", (settled,))
    return int(settled)

"""What the sync worker does with the outbox: take the next batch, record the outcome."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import canonical
from tracker.erasure import ERASED
from tracker.outbox import account, owner
from tracker.outbox.erasure import Erasures
from tracker.outbox.transaction import driver_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from tracker.outbox.transaction import Transaction

DAMAGED = "damaged"
"""Code of a dead letter whose row no longer matches its digest."""

_STILL_PENDING = "delivered_at_ms IS NULL AND dead_at_ms IS NULL"

_PENDING = """
SELECT seq, event_id, type, timestamp_ms, agent_id, session_id, user_id, data, digest, chain
FROM events
WHERE seq > ? AND delivered_at_ms IS NULL AND dead_at_ms IS NULL
ORDER BY seq LIMIT ?
"""


class Row(NamedTuple):
    """One pending event as it goes over the wire."""

    seq: int
    event_id: str
    wire: bytes


@dataclass(frozen=True)
class Batch:
    """Pending events in ascending seq, read at one moment.

    Attributes:
        after: `sync_state.settled_through` when the batch was read.
        rows: The events to send.
        size: Bytes of the encoded events, commas included.
        damaged: seqs of rows whose digest does not match: not to be sent as if whole.
        more: Whether the bounds cut the batch off, so that more is pending for sure.
        erasure: seq of the newest event that says that others were erased, or None.
        outbox_id: The outbox that gave the seqs. Another one may be at its place by the time that
            the receipt comes.
    """

    after: int
    rows: Sequence[Row]
    size: int
    damaged: Sequence[int] = ()
    more: bool = False
    erasure: int | None = None
    outbox_id: str = ""

    @property
    def through(self) -> int:
        """The last seq of the batch, in whatever state; `after` if it is empty."""
        return max([self.after, *self.damaged, *(row.seq for row in self.rows[-1:])])


@dataclass(frozen=True)
class DeadLetter:
    """Why one event of a batch will not be sent again."""

    seq: int
    code: str
    message: str


@dataclass(frozen=True)
class SyncState:
    """How uploading stands, as stored for ``tracker-sync status``. Times in Unix milliseconds."""

    settled_through: int = 0
    last_success_ms: int | None = None
    last_error: str | None = None
    last_error_ms: int | None = None
    next_attempt_ms: int | None = None
    paused_because: str | None = None
    flush_requests: int = field(default=0, compare=False)


def next_batch(
    connection: Connection, max_events: int, max_bytes: int, after: int | None = None
) -> Batch:
    """Return the pending events that come next; at least one, if any is pending.

    The cursor is closed before this returns: none is open while a request is under way. With
    `after` it is the batch that comes next once all events up to there are settled.
    """
    if after is None:
        after = settled_through(connection)
    rows: list[Row] = []
    damaged: list[int] = []
    size = 0
    more = False
    erasure, erasures = _newest_erasure(connection), Erasures(connection)
    # The driver's own cursor: SQLAlchemy's rows would take twice the time.
    result = driver_of(connection).execute(_PENDING, (after, max_events))
    try:
        for seq, *columns, digest, chain in result:
            wire = _wire(seq, columns, digest, chain, erasures)
            if wire is None:
                damaged.append(seq)
                continue
            if rows and size + len(wire) + 1 > max_bytes:
                more = True
                break
            rows.append(Row(seq, columns[0], wire))
            size += len(wire) + 1
    finally:
        result.close()
    more = more or len(rows) + len(damaged) == max_events
    outbox_id = owner.read(connection).outbox_id
    return Batch(after, rows, size, damaged, more, erasure, outbox_id)


def is_next(connection: Connection, batch: Batch, received: Sequence[Batch] = ()) -> bool:
    """Tell whether a batch that was read in advance is what comes next by now.

    Not if the one before it did not arrive, or an operator has made an event pending again,
    discarded one or sent one to the dead letters meanwhile; nor if any event was erased, or the
    outbox was begun anew.

    Args:
        connection: A reader's.
        batch: The batch.
        received: Those before it that were received, which the outbox does not know yet.
    """
    if owner.read(connection).outbox_id != batch.outbox_id:
        return False
    if _newest_erasure(connection) != batch.erasure:
        return False
    sent = (row.seq for each in (*received, batch) for row in each.rows)
    expected = sorted([*sent, *batch.damaged])
    return _pending_between(connection, settled_through(connection) + 1, batch.through) == expected


def _pending_between(connection: Connection, first: int, last: int) -> list[int]:
    """Return the seqs of the pending events from `first` to `last`, in order."""
    query = f"SELECT seq FROM events WHERE seq BETWEEN ? AND ? AND {_STILL_PENDING} ORDER BY seq"  # noqa: S608 - constant text
    return [seq for (seq,) in driver_of(connection).execute(query, (first, last)).fetchall()]


def _newest_erasure(connection: Connection) -> int | None:
    """Return the seq of the newest event that says that others were erased."""
    newest: int | None = connection.exec_driver_sql(
        "SELECT max(seq) FROM events WHERE type = 'compliance.erased'"
    ).scalar()
    return newest


def _wire(
    seq: int, columns: Sequence[Any], digest: str, chain: str, erasures: Erasures
) -> bytes | None:
    """Return the event's JSON, or None when the row neither matches its digest nor was erased."""
    try:
        envelope = canonical.envelope(*columns)
        intact = canonical.digest(envelope) == digest
        intact = intact or (columns[-1] == ERASED and erasures.name(columns[0]))
    except (TypeError, ValueError):
        return None
    if not intact:
        return None
    return f'{envelope[:-1]},"seq":{seq},"digest":"{digest}","chain":"{chain}"}}'.encode()


def settled_through(connection: Connection) -> int:
    """Return the seq up to which no event is pending."""
    return int(connection.exec_driver_sql("SELECT settled_through FROM sync_state").scalar_one())


def settle(batch: Batch, dead: Sequence[DeadLetter] = ()) -> Callable[[Transaction], int]:
    """Return the job that records that a batch was received: delivered, but for the `dead`.

    The job returns how many events it marked delivered.
    """

    def job(transaction: Transaction) -> int:
        connection = transaction.connection
        if owner.read(connection).outbox_id == batch.outbox_id:
            here, letters = batch, dead
        else:
            here, letters = _find_again(connection, batch, dead)
        bury(connection, letters)
        gone = {letter.seq for letter in letters}
        delivered = _mark_delivered(connection, [r.seq for r in here.rows if r.seq not in gone])
        account.add(connection, account.DELIVERED, delivered)
        _advance(connection, here.through)
        connection.exec_driver_sql(
            "UPDATE sync_state SET next_attempt_ms = NULL, paused_because = NULL, "
            "last_success_ms = CASE WHEN ? THEN ? ELSE last_success_ms END",
            (delivered > 0, time.time_ns() // 1_000_000),
        )
        return delivered

    return job


def _find_again(
    connection: Connection, batch: Batch, dead: Sequence[DeadLetter]
) -> tuple[Batch, list[DeadLetter]]:
    """Return batch and dead letters as they stand in the outbox that was begun anew meanwhile."""
    seqs: dict[int, int] = {}
    rows: list[Row] = []
    for row in batch.rows:
        query = "SELECT seq FROM events WHERE event_id = ?"
        seq = connection.exec_driver_sql(query, (row.event_id,)).scalar()
        if seq is not None:
            seqs[row.seq] = seq
            rows.append(row._replace(seq=seq))
    rows.sort(key=lambda row: row.seq)
    letters = [replace(letter, seq=seqs[letter.seq]) for letter in dead if letter.seq in seqs]
    return replace(batch, after=0, rows=rows, damaged=()), letters


def set_aside(batch: Batch, letters: Sequence[DeadLetter]) -> Callable[[Transaction], None]:
    """Return the job that makes dead letters of events of a batch that must not be sent.

    In an outbox that was begun anew meanwhile it does nothing: damaged rows did not come over, and
    their seqs are others' there.
    """

    def job(transaction: Transaction) -> None:
        connection = transaction.connection
        if owner.read(connection).outbox_id == batch.outbox_id:
            bury(connection, letters)
            _advance(connection, letters[-1].seq)

    return job


def _advance(connection: Connection, through: int) -> None:
    """Move `settled_through` up to `through`, but not past an event that is pending.

    An operator's retry may have made an earlier event pending while the batch was under way.
    """
    connection.exec_driver_sql(
        "UPDATE sync_state SET settled_through = coalesce("
        "(SELECT min(seq) - 1 FROM events WHERE seq > settled_through AND seq <= ? "
        "AND delivered_at_ms IS NULL AND dead_at_ms IS NULL), max(settled_through, ?))",
        (through, through),
    )


def is_stored(connection: Connection, event_id: str) -> bool:
    """Tell whether the outbox holds the event."""
    query = "SELECT 1 FROM events WHERE event_id = ?"
    return connection.exec_driver_sql(query, (event_id,)).first() is not None


def _mark_delivered(connection: Connection, seqs: Sequence[int]) -> int:
    if not seqs:
        return 0
    now = time.time_ns() // 1_000_000
    first, last = seqs[0], seqs[-1]
    # The usual case: the batch is all that is pending in its range.
    if _pending_between(connection, first, last) == list(seqs):
        changed = connection.exec_driver_sql(
            f"UPDATE events SET delivered_at_ms = ? WHERE seq BETWEEN ? AND ? AND {_STILL_PENDING}",  # noqa: S608 - constant text
            (now, first, last),
        ).rowcount
        return int(changed)
    changed = 0
    for seq in seqs:
        changed += connection.exec_driver_sql(
            f"UPDATE events SET delivered_at_ms = ? WHERE seq = ? AND {_STILL_PENDING}",  # noqa: S608 - constant text
            (now, seq),
        ).rowcount
    return changed


def bury(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """Make pending events dead letters: kept, not sent, and in nobody's way."""
    now = time.time_ns() // 1_000_000
    buried = 0
    for letter in letters:
        buried += connection.exec_driver_sql(
            "UPDATE events SET dead_at_ms = ?, dead_code = ?, dead_message = ? "
            "WHERE seq = ? AND delivered_at_ms IS NULL AND dead_at_ms IS NULL",
            (now, letter.code, letter.message, letter.seq),
        ).rowcount
    account.add(connection, account.DEAD, buried)


def read_state(connection: Connection) -> SyncState:
    """Return how uploading stands."""
    row = connection.exec_driver_sql(
        "SELECT settled_through, last_success_ms, last_error, last_error_ms, next_attempt_ms, "
        "paused_because, flush_requests FROM sync_state"
    ).one()
    return SyncState(*row)


def write_state(**columns: Any) -> Callable[[Transaction], None]:
    """Return the job that stores the given columns of `sync_state`."""
    assignments = ", ".join(f"{name} = ?" for name in columns)

    def job(transaction: Transaction) -> None:
        transaction.connection.exec_driver_sql(
            f"UPDATE sync_state SET {assignments}",  # noqa: S608 - names of our own columns
            tuple(columns.values()),
        )

    return job


def request_flush(transaction: Transaction) -> None:
    """Ask the uploading process, whichever it is, to try now instead of pausing."""
    transaction.connection.exec_driver_sql(
        "UPDATE sync_state SET flush_requests = flush_requests + 1"
    )


def recount(transaction: Transaction) -> int:
    """Set `settled_through` anew from the rows and return it.

    A safety net, at the cost of a scan: for the day when the count of pending events and the place
    where they should stand disagree.
    """
    connection = transaction.connection
    first = connection.exec_driver_sql(
        "SELECT min(seq) FROM events WHERE delivered_at_ms IS NULL AND dead_at_ms IS NULL"
    ).scalar()
    settled = account.last_seq(connection) if first is None else first - 1
    connection.exec_driver_sql("UPDATE sync_state SET settled_through = ?", (settled,))
    return int(settled)

"""Judging the heads that a batch says, and cosigning those that extend what was cosigned before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal, NamedTuple

from sqlalchemy import exists, func, insert, select, update

from tracker import canonical
from tracker.collector import outbox_keys
from tracker.collector.tables import checkpoints, events, heads
from tracker.events import INTEGRITY_CHECKPOINT, INTEGRITY_KEY_CHANGED
from tracker.evidence import heads as evidence
from tracker.evidence.heads import Claim, Judgement

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

    from tracker.collector.batch import Batch, ReceivedEvent
    from tracker.collector.outbox_keys import Reason
    from tracker.collector.witness import Witness
    from tracker.evidence.verifier import Key

State = Literal["cosigned", "unproven", "contradicting", "unsigned"]
"""What became of a head.

``cosigned``: it extends every head that was cosigned before. ``unproven``: it is smaller than one,
or its proof begins elsewhere; it may be right. ``contradicting``: it and one that was cosigned are
not of the same tree. ``unsigned``: it is not signed by the key that is bound to the outbox.
"""
TELLING = (INTEGRITY_CHECKPOINT, INTEGRITY_KEY_CHANGED)
"""Types of the events that tell of an outbox's tree."""
_HOUR_MS = 3_600_000
_STAMPED_TOGETHER = 100
_STATES: dict[Judgement, State] = {
    Judgement.EXTENDS: "cosigned",
    Judgement.KNOWN: "cosigned",
    Judgement.OLDER: "unproven",
    Judgement.UNPROVEN: "unproven",
    Judgement.CONTRADICTS: "contradicting",
}


class Cosigned(NamedTuple):
    """A head that was cosigned.

    Attributes:
        id: Its row in `checkpoints`.
        size: How many events it covers: seq 1 to `size`.
        root: The root of their tree, 64 hex digits.
        note: The note with the device's signatures, if any, and the cosignature.
    """

    id: int
    size: int
    root: str
    note: str


class Judged(NamedTuple):
    """What became of a batch's heads: the newest that was cosigned, and whether any contradicts."""

    cosigned: Cosigned | None
    contradicts: bool


class _Candidate(NamedTuple):
    """A head, whether the outbox's key signed it, and the keys to bind if it is cosigned."""

    seq: int
    claim: Claim
    is_signed: bool
    keys: tuple[tuple[Key, Reason], ...]


def new_among(
    connection: Connection, client_id: str, received: Sequence[ReceivedEvent]
) -> list[ReceivedEvent]:
    """Return those of a batch's events that tell of the tree and are not stored yet, by seq."""
    if all(event.type not in TELLING for event in received):
        return []
    first: dict[str, ReceivedEvent] = {}
    for event in received:
        first.setdefault(event.event_id, event)
    telling = [event for event in first.values() if event.type in TELLING]
    query = select(events.c.event_id).where(
        events.c.client_id == client_id,
        events.c.event_id.in_([event.event_id for event in telling]),
    )
    stored = set(connection.execute(query).scalars())
    return sorted(event for event in telling if event.event_id not in stored)


def judge(
    connection: Connection,
    witness: Witness,
    batch: Batch,
    telling: Sequence[ReceivedEvent],
    now_ms: int,
) -> Judged:
    """Judge the heads of a batch, store them, and cosign the largest that may be cosigned.

    What is cosigned is compared with everything that was cosigned for the outbox, whichever client
    sent it. The caller excludes other transactions that do the same.

    Args:
        connection: The transaction that stores the batch.
        witness: Who cosigns.
        batch: The batch.
        telling: What `new_among` returns.
        now_ms: The collector's clock, Unix milliseconds.
    """
    outbox_id = batch.outbox_id
    last = newest(connection, outbox_id)
    found, contradicts = None, False
    # The largest first: those that a device made while it was offline all begin at the same head.
    candidates = sorted(
        _candidates(connection, batch, telling), key=lambda each: -each.claim.head.size
    )
    for seq, claim, is_signed, keys in candidates:
        state = _state(connection, outbox_id, claim, last) if is_signed else "unsigned"
        is_cosigned = state == "cosigned"
        note = witness.cosigned(claim, now_ms) if is_cosigned else claim.note
        row = _store(connection, batch, seq, claim, state, note, now_ms)
        contradicts |= state == "contradicting"
        if is_cosigned:
            last = Cosigned(row, claim.head.size, claim.head.root.hex(), note)
            if found is None:
                found = last
                for key, reason in keys:
                    outbox_keys.bind(connection, batch.client_id, outbox_id, key, reason)
    return Judged(found, contradicts)


def newest(connection: Connection, outbox_id: str) -> Cosigned | None:
    """Return the largest head of an outbox that was cosigned, for any client."""
    query = (
        select(*_COSIGNED)
        .where(checkpoints.c.outbox_id == outbox_id, checkpoints.c.state == "cosigned")
        .order_by(checkpoints.c.size.desc(), checkpoints.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else Cosigned(*row)


_COSIGNED = (checkpoints.c.id, checkpoints.c.size, checkpoints.c.root, checkpoints.c.note)


def known(connection: Connection, client_id: str, outbox_id: str) -> tuple[int, int]:
    """Return the largest size that was cosigned for a client, and how many heads contradict that.

    The size is 0 if none was cosigned.
    """
    query = (
        select(checkpoints.c.state, func.max(checkpoints.c.size), func.count())
        .where(checkpoints.c.client_id == client_id, checkpoints.c.outbox_id == outbox_id)
        .group_by(checkpoints.c.state)
    )
    found = {state: (size, count) for state, size, count in connection.execute(query)}
    none = (0, 0)
    return found.get("cosigned", none)[0], found.get("contradicting", none)[1]


def to_stamp(connection: Connection, now_ms: int) -> list[tuple[int, str]]:
    """Return id and note of the newest head of each outbox that had no time stamp for an hour."""
    newest = heads.join(checkpoints, heads.c.checkpoint_id == checkpoints.c.id)
    others = checkpoints.alias()
    recent = exists().where(
        others.c.outbox_id == checkpoints.c.outbox_id, others.c.stamped_at_ms > now_ms - _HOUR_MS
    )
    query = (
        select(checkpoints.c.id, checkpoints.c.note)
        .select_from(newest)
        .where(checkpoints.c.timestamp.is_(None), ~recent)
        .order_by(checkpoints.c.id)
        .limit(_STAMPED_TOGETHER)
    )
    return [(head_id, note) for head_id, note in connection.execute(query)]


def add_timestamp(connection: Connection, head_id: int, reply: bytes, now_ms: int) -> None:
    """Keep a reply of RFC 3161 over a head's cosigned note; the first one stays."""
    mine = (checkpoints.c.id == head_id, checkpoints.c.timestamp.is_(None))
    values = {"timestamp": reply, "stamped_at_ms": now_ms}
    connection.execute(update(checkpoints).where(*mine).values(**values))


def _candidates(
    connection: Connection, batch: Batch, telling: Sequence[ReceivedEvent]
) -> Iterator[_Candidate]:
    key = outbox_keys.current(connection, batch.outbox_id)
    is_bound = key is not None
    to_bind: tuple[tuple[Key, Reason], ...] = ()
    for event in telling:
        try:
            data = canonical.decode(event.data)
            if event.type == INTEGRITY_KEY_CHANGED:
                old, new = evidence.read_key_change(data, batch.outbox_id)
            else:
                claim = evidence.read(data, batch.outbox_id)
        except ValueError:
            continue  # a device may say anything: then it has said nothing
        if event.type == INTEGRITY_KEY_CHANGED:
            if old != key:
                continue
            key = new
            if is_bound:
                outbox_keys.bind(connection, batch.client_id, batch.outbox_id, key, "changed")
            else:
                to_bind += ((key, "changed"),)
        elif claim.head.size < event.seq:  # a head cannot cover the event that says it
            if key is None and claim.key is not None and claim.is_signed_by(claim.key):
                key, to_bind = claim.key, ((claim.key, "first"),)
            is_signed = claim.key is None if key is None else claim.is_signed_by(key)
            yield _Candidate(event.seq, claim, is_signed, to_bind)


def _state(connection: Connection, outbox_id: str, claim: Claim, last: Cosigned | None) -> State:
    known = None if last is None else (last.size, bytes.fromhex(last.root))
    judgement = evidence.judge(claim, known)
    if judgement is Judgement.OLDER:
        query = select(checkpoints.c.root).where(
            checkpoints.c.outbox_id == outbox_id,
            checkpoints.c.state == "cosigned",
            checkpoints.c.size == claim.head.size,
        )
        root = connection.execute(query.limit(1)).scalar()
        if root not in (None, claim.head.root.hex()):
            return "contradicting"
    return _STATES[judgement]


def _store(
    connection: Connection,
    batch: Batch,
    seq: int,
    claim: Claim,
    state: State,
    note: str,
    now_ms: int,
) -> int:
    values = {
        "client_id": batch.client_id,
        "outbox_id": batch.outbox_id,
        "seq": seq,
        "size": claim.head.size,
        "root": claim.head.root.hex(),
        "state": state,
        "note": note,
        "unknown": json.dumps(claim.unknown) if claim.unknown else None,
        "received_at_ms": now_ms,
    }
    (row,) = connection.execute(insert(checkpoints).values(**values)).inserted_primary_key or (0,)
    return int(row)

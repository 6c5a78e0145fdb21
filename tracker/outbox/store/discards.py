"""Giving up events that were not delivered, with an event that tells the receiver which."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tracker import canonical, discards
from tracker.events import EVENTS_DISCARDED, Event, make_event
from tracker.outbox.schema import tables
from tracker.outbox.store import gaps, identity, ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tracker.discards import Range
    from tracker.outbox.store.transaction import Transaction

CARRIED_OVER = "carried_over"
"""The reason for events that were delivered under the id of another outbox, from which this one was
made: under this id they are never sent."""

_MOST_RANGES = 1_000
"""Ranges in one event: some 20 kB."""

_EVENT = f"""
SELECT {tables.EVENT}, chain, coalesce(
  (SELECT chain FROM events WHERE seq = ? - 1),
  (SELECT chain FROM gaps WHERE last_seq = ? - 1), ?)
FROM events WHERE seq = ?
"""


def discard(transaction: Transaction, reason: str, rows: Sequence[tuple[int, str, str]]) -> int:
    """Delete undelivered events, given as (seq, chain, type) in ascending seq; return how many.

    They are counted for `reason`, and ``events.discarded`` events are logged in the same
    transaction. What a discarded one of these had named is named again: whatever leaves the outbox,
    the receiver learns of all that it will never get.
    """
    own = [seq for seq, _, type_ in rows if type_ == EVENTS_DISCARDED]
    earlier = [said for seq in own for said in _said_by(transaction, seq)]
    removed = gaps.remove(transaction, [(seq, chain) for seq, chain, _ in rows])
    ledger.discard(transaction.connection, reason, removed)
    name(transaction, reason, discards.runs(seq for seq, _, _ in rows), earlier)
    return removed


def name(
    transaction: Transaction,
    reason: str,
    ranges: Iterable[Range],
    earlier: Iterable[discards.Discards] = (),
) -> None:
    """Log ``events.discarded`` events that name ranges of this outbox, and what `earlier` ones did.

    There is one for each outbox and reason, and for each 1,000 ranges.
    """
    own_id = identity.read(transaction.connection).outbox_id
    named = defaultdict(list, {(own_id, reason): list(ranges)})
    for said in earlier:
        named[said.outbox_id or own_id, said.reason] += said.ranges
    for (outbox_id, why), all_of_it in named.items():
        listed = discards.merged(all_of_it)
        for start in range(0, len(listed), _MOST_RANGES):
            part = listed[start : start + _MOST_RANGES]
            fields = {"outbox_id": outbox_id, "reason": why, "ranges": part}
            transaction.append(make_event(EVENTS_DISCARDED, fields))


def _said_by(transaction: Transaction, seq: int) -> list[discards.Discards]:
    """Return what an ``events.discarded`` event says, if it is whole and in its place.

    One that somebody slipped in without the chain key is not vouched for by being named again.
    """
    query = _EVENT, (seq, seq, canonical.GENESIS, seq)
    *fields, chain, before = transaction.connection.exec_driver_sql(*query).one()
    event = Event(*fields)
    genuine = event.is_intact and transaction.link(before, event.digest) == chain
    return [discards.read(event.data)] if genuine else []

"""Telling events that were deleted by age, and come again, from those that come for the first time.

A receipt for a duplicate says that the event was stored. So an event counts as one only if it must
have been here: its number was received and deleted, and its id was made before the events that were
deleted had arrived. A number that never came, and a new event to which a restored copy of an outbox
gives a number that was used, is stored.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from tracker.collector import accounts
from tracker.collector.partitioning.months import time_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from tracker.collector.accounts import Account
    from tracker.collector.batch import Batch
    from tracker.discards import Range

_VERSION = 14
"""Where a UUID says its version."""


class Numbered(Protocol):
    """An event with its number."""

    @property
    def seq(self) -> int:
        """Its number."""
        ...

    @property
    def event_id(self) -> str:
        """Its id."""
        ...


def known(
    events: Iterable[Numbered], gaps: Sequence[Range], pruned_through: int, pruned_before_ms: int
) -> set[str]:
    """Return the ids of the events of an outbox that were here, and were deleted.

    Args:
        events: Events that arrive, none of which is stored.
        gaps: First and last of the numbers up to `pruned_through` that never came, in order.
        pruned_through: The highest number of those that were deleted.
        pruned_before_ms: They were received before this time, Unix milliseconds.
    """
    firsts = [first for first, _ in gaps]

    def never_came(seq: int) -> bool:
        place = bisect_right(firsts, seq) - 1
        return place >= 0 and seq <= gaps[place][1]

    return {
        event.event_id
        for event in events
        if event.seq <= pruned_through
        and event.event_id[_VERSION] == "7"
        and time_of(event.event_id) < pruned_before_ms
        and not never_came(event.seq)
    }


def without_known(connection: Connection, account: Account, batch: Batch) -> Batch:
    """Return a batch without the events that were here, and were deleted.

    Where that cannot be told, since a former version stores events of the outbox, or two copies of
    it send, all are left.
    """
    through = account.pruned_through
    low = [event for event in batch.events if event.seq <= through]
    if not low or account.forked or not account.is_complete:
        return batch
    gaps = accounts.gaps_of(connection, account.client_id, account.outbox_id)
    below = list(takewhile(lambda gap: gap[0] <= through, gaps))
    gone = known(low, below, through, account.pruned_before_ms)
    return replace(batch, events=tuple(each for each in batch.events if each.event_id not in gone))

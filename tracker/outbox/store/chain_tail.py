"""The tail of the chain: the newest seq, and the chain value there."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, TypeAlias

from tracker import canonical
from tracker.outbox.store import ledger

if TYPE_CHECKING:
    from tracker.events import Event

# The newest event may have been removed on purpose; then `gaps` keeps its place. Not a single query
# with UNION ALL, which takes four times as long.
_NEWEST = "SELECT {} FROM events ORDER BY seq DESC LIMIT 1"
_NEWEST_GAP = "SELECT {} FROM gaps ORDER BY first_seq DESC LIMIT 1"
# If it was cut off by hand, the ledger still knows its seq, and the next event leaves a gap.
_STORED = f"SELECT events FROM account WHERE entry = '{ledger.STORED}'"  # noqa: S608 - our own

_READ = (
    f"SELECT ({_NEWEST.format('seq')}), ({_NEWEST.format('chain')}), "
    f"({_NEWEST_GAP.format('last_seq')}), ({_NEWEST_GAP.format('chain')}), ({_STORED})"
)

LAST_GIVEN = f"max(({_NEWEST.format('seq')}), coalesce(({_NEWEST_GAP.format('last_seq')}), 0))"
"""SQL for the newest seq of an outbox with at least one event in it; NULL if there is none."""

Head: TypeAlias = tuple[int, str]
"""The newest seq and the chain value there."""

BEGINNING: Head = (0, canonical.GENESIS)
"""The tail of an outbox without events."""


def read(driver: sqlite3.Connection) -> Head:
    """Return the tail of the chain.

    Raises:
        sqlite3.DatabaseError: if a seq is not a number, as in a damaged file.
    """
    seq, link, gap_seq, gap_link, stored = driver.execute(_READ).fetchone()
    newest: Head = BEGINNING if seq is None else (seq, link)
    gap: Head = BEGINNING if gap_seq is None else (gap_seq, gap_link)
    stored = 0 if stored is None else stored
    if not (type(gap[0]) is int and type(stored) is int):
        raise sqlite3.DatabaseError("the bookkeeping is malformed")
    seq, link = gap if gap[0] >= newest[0] else newest
    return max(seq, stored), link


def after(head: Head, event: Event, chain_key: bytes | None) -> Head:
    """Return the tail of the chain once `event` is stored after `head`."""
    return head[0] + 1, canonical.chain(head[1], event.digest, chain_key)

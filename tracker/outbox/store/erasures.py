"""Which events the stored erasure events name, and naming those that none names any more."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from tracker.erasure import named_events, unsalted_events
from tracker.events import COMPLIANCE_ERASED, Event, make_event
from tracker.outbox.schema import tables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from tracker.outbox.store.transaction import Transaction

# SQLite uses the index of erasure events only if the type is written out.
_PREVIOUS = f"""
SELECT seq, {tables.EVENT} FROM events
WHERE type = 'compliance.erased' AND seq < ? ORDER BY seq DESC LIMIT 1
"""


NAME_LOST = "the event that named these erasures was lost with a damaged or deleted outbox"
"""The reason in an erasure event that takes the place of lost ones; it has no subject."""

_MOST = 200
"""Events that one event names: some 16 kB."""

_BOUND = 500
"""Values in one query; SQLite before 3.32 binds at most 999."""


class Erasures:
    """The events that the stored erasure events name.

    Reads erasure events from the newest on, and only as many as necessary: if nothing was erased,
    it reads nothing. An erasure event that does not match its own digest names nothing.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._before = 2**63 - 1
        self._named: set[str] = set()
        self._unsalted: set[str] = set()

    def name(self, event: Event) -> bool:
        """Return True if an erasure event names the event, and that in the state that it is in."""
        named = self._unsalted if event.sealed is None else self._named
        while event.event_id not in named and self._read_another():
            pass
        return event.event_id in named

    def _read_another(self) -> bool:
        row = self._connection.exec_driver_sql(_PREVIOUS, (self._before,)).first()
        if row is None:
            return False
        self._before, *fields = row
        event = Event(*fields)
        if event.is_intact:
            self._named.update(named_events(event.data))
            self._unsalted.update(unsalted_events(event))
        return True


def still_needed(connection: Connection, seqs: Iterable[int]) -> set[int]:
    """Return those of `seqs` that are erasure events and name an event that is still stored."""
    return {seq for seq in seqs if _names_stored(connection, seq)}


def _names_stored(connection: Connection, seq: int) -> bool:
    data = connection.exec_driver_sql(
        "SELECT data FROM events WHERE seq = ? AND type = 'compliance.erased'", (seq,)
    ).scalar()
    named = iter(() if data is None else named_events(data))
    while some := list(islice(named, _BOUND)):
        marks = ", ".join("?" * len(some))
        query = f"SELECT 1 FROM events WHERE event_id IN ({marks}) LIMIT 1"
        if connection.exec_driver_sql(query, tuple(some)).first() is not None:
            return True
    return False


def name(transaction: Transaction, erased: Iterable[Event]) -> None:
    """Log erasure events that name those of some erased events that no stored one names.

    Called where rows come from a damaged or deleted outbox, whose erasure event may be lost. Only
    those are named that their digest proves to be what an erasure has left.
    """
    stored = Erasures(transaction.connection)
    unnamed = [
        each.event_id
        for each in erased
        if each.sealed is not None and each.is_intact and not stored.name(each)
    ]
    for start in range(0, len(unnamed), _MOST):
        fields = {"event_ids": unnamed[start : start + _MOST], "reason": NAME_LOST}
        transaction.append(make_event(COMPLIANCE_ERASED, fields))

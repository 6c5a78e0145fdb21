"""The loss account: accepted = delivered + pending + dead + discarded + skipped, at any moment.

Counting rows would take seconds in a large outbox. So each change of an event's state also updates
a small table in the same transaction, and pending is the rest of the last seq: the sum is correct
by construction, and ``tracker-sync verify`` compares it with the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

DELIVERED = "delivered"
DEAD = "dead"
SKIPPED = "skipped"
STORED = "stored"
"""Entry for the newest seq at the last write that did more than append: without this anchor, rows
at the end could be removed without a trace. Updating it with each append would write one more page
(1.2 times the time)."""
BACKUP = "backup"
"""Entry by which a backup records when it was made, in Unix milliseconds."""
ACCOUNT = "account"
"""The kind of the account's proof, which covers what `ENTRIES` returns."""
ENTRIES = f"SELECT entry, events FROM account WHERE entry != '{BACKUP}' ORDER BY entry"  # noqa: S608 - our own
NOTE_PROOF = f"UPDATE account SET proof = ? WHERE entry = '{STORED}'"  # noqa: S608 - our own
"""Stores the account's proof, beside the newest seq."""
DISCARDED = "discarded."
"""Prefix of the entries for discarded events; the reason follows."""

BY_OPERATOR = "operator"
BY_SIZE = "size_policy"
BY_BUFFER = "memory_buffer"
"""Events that did not fit into the memory buffer while storage failed; they never had a seq."""
BY_DAMAGE = "damage"
"""Undelivered events that could not be salvaged from the damaged file before this one."""

BY_HOOK = "hook"
"""Events that the application's own `APIConfig.before_record` dropped; they never had a seq."""

WITHOUT_SEQ = (BY_BUFFER, BY_DAMAGE, BY_HOOK)
"""Reasons for discarding events that never had a seq in this outbox."""


@dataclass(frozen=True)
class Account:
    """Where every event that was ever accepted is now. All figures are numbers of events.

    Attributes:
        accepted: Events from logging calls.
        delivered: Events that are stored elsewhere according to a receipt.
        pending: Events that wait to be sent.
        dead: Dead letters: events that the server refused for good, kept for the operator.
        discarded: Events that were given up on purpose, by reason.
        skipped: Events of types that a setting says not to send; they stay here for a while, as
            delivered ones do.
    """

    accepted: int = 0
    delivered: int = 0
    pending: int = 0
    dead: int = 0
    discarded: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0


def read(connection: Connection) -> Account:
    """Return the current account."""
    entries = {
        row.entry: row.events
        for row in connection.exec_driver_sql("SELECT entry, events FROM account")
    }
    delivered, dead, skipped = (entries.get(name, 0) for name in (DELIVERED, DEAD, SKIPPED))
    discarded = {
        entry.removeprefix(DISCARDED): events
        for entry, events in sorted(entries.items())
        if entry.startswith(DISCARDED)
    }
    accepted = last_seq(connection) + sum(discarded.get(reason, 0) for reason in WITHOUT_SEQ)
    pending = accepted - delivered - dead - skipped - sum(discarded.values())
    return Account(accepted, delivered, pending, dead, discarded, skipped)


def add(connection: Connection, entry: str, events: int) -> None:
    """Add `events`, which may be negative, to an entry, in the caller's transaction."""
    if events:
        connection.exec_driver_sql(
            "INSERT INTO account (entry, events) VALUES (?, ?) "
            "ON CONFLICT (entry) DO UPDATE SET events = events + excluded.events",
            (entry, events),
        )


def discard(connection: Connection, reason: str, events: int) -> None:
    """Count `events` as given up for `reason`."""
    add(connection, DISCARDED + reason, events)


def note_stored(connection: Connection, seq: int) -> None:
    """Record the newest seq ever assigned."""
    connection.exec_driver_sql(
        "INSERT INTO account (entry, events) VALUES (?, ?) "
        "ON CONFLICT (entry) DO UPDATE SET events = max(events, excluded.events)",
        (STORED, seq),
    )


def last_seq(connection: Connection) -> int:
    """Return the newest seq ever assigned, 0 in a new outbox."""
    return int(
        connection.exec_driver_sql(
            "SELECT max(coalesce((SELECT max(seq) FROM events), 0), "
            "coalesce((SELECT last_seq FROM gaps WHERE typeof(last_seq) = 'integer' "
            "ORDER BY first_seq DESC LIMIT 1), 0), "
            "coalesce((SELECT events FROM account WHERE entry = 'stored'), 0))"
        ).scalar_one()
    )

"""What was erased at somebody's request, as ``compliance.erased`` events say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from tracker import canonical
from tracker.events import COMPLIANCE_ERASED
from tracker.queries.source import newest_page

if TYPE_CHECKING:
    from sqlalchemy import Connection, FromClause


@dataclass(frozen=True)
class Erasure:
    """One request to erase what was stored of somebody.

    Attributes:
        event_id: Id of the event that asked for it.
        timestamp_ms: When it was logged, Unix milliseconds.
        subject: Who was erased, or the SHA-256 of that; None if it does not say.
        events: How many events it names.
        reason: Why; None if it does not say.
    """

    event_id: str
    timestamp_ms: int
    subject: str | None
    events: int
    reason: str | None


def newest_erasures(
    connection: Connection,
    limit: int,
    before: int | None,
    max_characters: int,
    events: FromClause,
) -> tuple[list[Erasure], int | None]:
    """Return a page of erasures, newest first, and where the next one begins.

    `limit`, `before`, `max_characters` and the second value are those of `newest_page`.
    """
    column = events.c
    query = select(column.event_id, column.timestamp_ms, column.data).where(
        column.type == COMPLIANCE_ERASED
    )
    rows, following = newest_page(connection, events, query, limit, before, max_characters)
    return [_erasure(*row) for row in rows], following


def _erasure(event_id: str, timestamp_ms: int, stored: str) -> Erasure:
    data = canonical.decode(stored)
    subject, named, reason = (data.get(name) for name in ("subject", "event_ids", "reason"))
    return Erasure(
        event_id,
        timestamp_ms,
        subject if isinstance(subject, str) else None,
        len(named) if isinstance(named, list) else 0,
        reason if isinstance(reason, str) else None,
    )

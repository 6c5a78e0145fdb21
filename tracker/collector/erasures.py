"""The erasures recorded by ``compliance.erased`` events."""

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
    """A recorded erasure.

    Attributes:
        event_id: Id of the erasure event.
        timestamp_ms: Time when it was logged, Unix milliseconds.
        subject: The user, or the SHA-256 of the user id; None if it is missing.
        events: Number of events that it names.
        reason: The reason; None if it is missing.
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
    """Return a page of erasures, newest first, and the start of the next page.

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

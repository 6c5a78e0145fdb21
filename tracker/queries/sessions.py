"""What the security tracker asks of the outbox: conversations left open, and its integrity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker.outbox.integrity import IntegrityReport, verify
from tracker.outbox.links import Problem, Unproven
from tracker.queries.conversations import OPEN, chunks, standings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from tracker.queries.conversations import Opening

__all__ = ["IntegrityReport", "Problem", "UnclosedSession", "Unproven", "unclosed", "verify"]


@dataclass(frozen=True)
class UnclosedSession:
    """A conversation that was started or resumed, and neither ended nor failed after that.

    Attributes:
        session_id: The conversation.
        agent_id: The agent that converses, or None if it is not known.
        user_id: The user it converses with, or None.
        opened_at_ms: When it was started or last resumed, Unix milliseconds.
        last_event_ms: When anything was last logged to it, Unix milliseconds.
    """

    session_id: str
    agent_id: str | None
    user_id: str | None
    opened_at_ms: int
    last_event_ms: int


def unclosed(connection: Connection, opened_before_ms: int) -> list[UnclosedSession]:
    """Return the conversations opened at that time or before and still open, oldest first."""
    opened = {
        session_id: opening
        for session_id, (status, opening) in standings(connection).items()
        if status == OPEN and opening is not None and _is_before(opening, opened_before_ms)
    }
    last = _last_events(connection, list(opened))
    found = sorted(opened.items(), key=lambda item: item[1].position)
    return [
        UnclosedSession(
            session_id,
            opening.agent_id,
            opening.user_id,
            opening.timestamp_ms,
            last.get(session_id, opening.timestamp_ms),  # its events may be pruned meanwhile
        )
        for session_id, opening in found
    ]


def _is_before(opening: Opening, before_ms: int) -> bool:
    opened: object = opening.timestamp_ms
    return isinstance(opened, int) and opened <= before_ms  # a damaged row holds any type


def _last_events(connection: Connection, sessions: Sequence[str]) -> dict[str, int]:
    """Return when anything was last logged to each of these sessions."""
    last: dict[str, int] = {}
    for chunk in chunks(sessions):
        rows = connection.exec_driver_sql(
            "SELECT session_id, max(timestamp_ms) FROM events "  # noqa: S608 - no text of anybody's
            f"WHERE session_id IN ({', '.join('?' * len(chunk))}) GROUP BY session_id",
            tuple(chunk),
        )
        last.update(map(tuple, rows))
    return last

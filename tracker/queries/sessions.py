"""Queries of the security tracker: unclosed conversations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker.outbox import IntegrityReport, Problem, Unproven, verify
from tracker.queries.conversations import OPEN, Opening, newest_first, standings

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["IntegrityReport", "Problem", "UnclosedSession", "Unproven", "unclosed", "verify"]


@dataclass(frozen=True)
class UnclosedSession:
    """A conversation that is open: neither ended nor failed since it was started or resumed.

    Attributes:
        session_id: The conversation.
        agent_id: The agent, or None if it is unknown.
        user_id: The user, or None.
        opened_at_ms: Time of its start or last resumption, Unix milliseconds; if neither is
            stored, that of its first event.
        last_event_ms: Time of its newest event, Unix milliseconds.
    """

    session_id: str
    agent_id: str | None
    user_id: str | None
    opened_at_ms: int
    last_event_ms: int


def unclosed(connection: Connection, opened_before_ms: int) -> list[UnclosedSession]:
    """Return the open conversations that were opened at that time or before, oldest first."""
    opened = {session_id: found.opening for session_id, found in standings(connection).items()}
    found = []
    for position, whole in newest_first(connection, OPEN):
        opening = opened.get(whole.session_id) or Opening(
            position, whole.started_at_ms, whole.agent_id, whole.user_id
        )
        if _is_before(opening, opened_before_ms):
            found.append((opening, whole))
    return [
        UnclosedSession(
            whole.session_id,
            opening.agent_id or whole.agent_id,
            opening.user_id or whole.user_id,
            opening.timestamp_ms,
            whole.last_at_ms,
        )
        for opening, whole in sorted(found, key=lambda pair: pair[0].position)
    ]


def _is_before(opening: Opening, before_ms: int) -> bool:
    opened: object = opening.timestamp_ms
    return isinstance(opened, int) and opened <= before_ms  # a damaged row may have any type

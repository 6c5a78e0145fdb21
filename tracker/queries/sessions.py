"""What the security tracker asks of the outbox: conversations left open, and its integrity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tracker.events import (
    CONVERSATION_ENDED,
    CONVERSATION_FAILED,
    CONVERSATION_RESUMED,
    CONVERSATION_STARTED,
)
from tracker.outbox.integrity import IntegrityReport, verify
from tracker.outbox.links import Problem, Unproven

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["IntegrityReport", "Problem", "UnclosedSession", "Unproven", "unclosed", "verify"]

_BEGUN = (CONVERSATION_STARTED, CONVERSATION_RESUMED)
_OVER = (CONVERSATION_ENDED, CONVERSATION_FAILED)

# The index on session_id holds seq too: only what came after the opening is read.
_UNCLOSED = """
SELECT session_id, agent_id, user_id, timestamp_ms,
       (SELECT max(timestamp_ms) FROM events AS any_ WHERE any_.session_id = opened.session_id)
FROM events AS opened
WHERE type IN (?, ?) AND session_id IS NOT NULL AND timestamp_ms <= ?
  AND NOT EXISTS (SELECT 1 FROM events AS later
                  WHERE later.session_id = opened.session_id AND later.seq > opened.seq
                    AND later.type IN (?, ?, ?, ?))
ORDER BY seq
"""


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
    rows = connection.exec_driver_sql(_UNCLOSED, (*_BEGUN, opened_before_ms, *_BEGUN, *_OVER))
    return [UnclosedSession(*row) for row in rows]

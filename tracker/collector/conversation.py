"""A conversation as its events tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import RowMapping

Status = Literal["open", "ended", "failed"]

_STATUS_AFTER: dict[str, Status] = {
    "conversation.started": "open",
    "conversation.resumed": "open",
    "conversation.ended": "ended",
    "conversation.failed": "failed",
}


@dataclass(frozen=True)
class Conversation:
    """What one session's events say of it as a whole.

    Attributes:
        session_id: The session.
        agent_id: The first agent that any of its events names, or None.
        user_id: The first user that any of its events names, or None.
        started_at_ms: When it started, Unix milliseconds; without a ``conversation.started`` the
            time of the first event held.
        ended_at_ms: When it last ended or failed, or None while it is open.
        status: What the last event that starts, resumes, ends or fails it says.
    """

    session_id: str
    agent_id: str | None
    user_id: str | None
    started_at_ms: int
    ended_at_ms: int | None
    status: Status


def summarise(session_id: str, events: Sequence[RowMapping]) -> Conversation:
    """Return what `events`, one session's in order and at least one, say of it."""
    turns = [event for event in events if event["type"] in _STATUS_AFTER]
    starts = [event for event in turns if event["type"] == "conversation.started"]
    status = _STATUS_AFTER[turns[-1]["type"]] if turns else "open"
    return Conversation(
        session_id,
        agent_id=_first(events, "agent_id"),
        user_id=_first(events, "user_id"),
        started_at_ms=(starts or events)[0]["timestamp_ms"],
        ended_at_ms=None if status == "open" else turns[-1]["timestamp_ms"],
        status=status,
    )


def _first(events: Sequence[RowMapping], column: str) -> str | None:
    return next((event[column] for event in events if event[column] is not None), None)

"""Summary of a conversation from its events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

Status = Literal["open", "ended", "failed"]

_STATUS_AFTER: dict[str, Status] = {
    "conversation.started": "open",
    "conversation.resumed": "open",
    "conversation.ended": "ended",
    "conversation.failed": "failed",
}


@dataclass(frozen=True)
class Conversation:
    """Summary of a session.

    Attributes:
        session_id: The session.
        agent_id: The first agent that one of its events names, or None.
        user_id: The first user that one of its events names, or None.
        started_at_ms: Time of its start, Unix milliseconds; without a ``conversation.started``
            event, the time of its first event.
        ended_at_ms: Time when it last ended or failed, or None while it is open.
        status: Its status after the last event that starts, resumes, ends or fails it.
    """

    session_id: str
    agent_id: str | None
    user_id: str | None
    started_at_ms: int
    ended_at_ms: int | None
    status: Status


SUMMARY_FIELDS = ("type", "timestamp_ms", "agent_id", "user_id")
"""The columns that `summarise` needs of each event, in this order."""


def summarise(session_id: str, events: Iterable[Any]) -> Conversation | None:
    """Return the summary of one session from its rows in order; None if there are none.

    The rows have the columns `SUMMARY_FIELDS`. They are read once and not kept.
    """
    agent_id = user_id = None
    first_ms = started_ms = ended_ms = None
    status: Status = "open"
    for kind, timestamp_ms, agent, user in events:
        first_ms = timestamp_ms if first_ms is None else first_ms
        agent_id = agent if agent_id is None else agent_id
        user_id = user if user_id is None else user_id
        if kind == "conversation.started" and started_ms is None:
            started_ms = timestamp_ms
        if kind in _STATUS_AFTER:
            status = _STATUS_AFTER[kind]
            ended_ms = None if status == "open" else timestamp_ms
    if first_ms is None:
        return None
    begun = first_ms if started_ms is None else started_ms
    return Conversation(session_id, agent_id, user_id, begun, ended_ms, status)

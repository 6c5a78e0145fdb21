"""`Event`: the event of a logging call, encoded and hashed before any lock is taken."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import canonical
from tracker.errors import ValidationError
from tracker.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping

CONVERSATION_STARTED = "conversation.started"
CONVERSATION_RESUMED = "conversation.resumed"
CONVERSATION_ENDED = "conversation.ended"
CONVERSATION_FAILED = "conversation.failed"
MESSAGE_LOGGED = "message.logged"
TOOL_CALLED = "tool.called"
FEEDBACK_RECORDED = "feedback.recorded"
LLM_USED = "llm.used"
AGENT_REGISTERED = "agent.registered"
AGENT_STATUS_CHANGED = "agent.status_changed"
AGENT_ACTIVITY = "agent.activity"
AGENT_HEARTBEAT = "agent.heartbeat"
SECURITY_REPORTED = "security.reported"
COMPLIANCE_AUDITED = "compliance.audited"
COMPLIANCE_ACKNOWLEDGED = "compliance.acknowledged"
COMPLIANCE_ERASED = "compliance.erased"

VOCABULARY = frozenset(
    {
        CONVERSATION_STARTED,
        CONVERSATION_RESUMED,
        CONVERSATION_ENDED,
        CONVERSATION_FAILED,
        MESSAGE_LOGGED,
        TOOL_CALLED,
        FEEDBACK_RECORDED,
        LLM_USED,
        AGENT_REGISTERED,
        AGENT_STATUS_CHANGED,
        AGENT_ACTIVITY,
        AGENT_HEARTBEAT,
        SECURITY_REPORTED,
        COMPLIANCE_AUDITED,
        COMPLIANCE_ACKNOWLEDGED,
        COMPLIANCE_ERASED,
    }
)
"""The event types of the protocol, whose fields are defined; other dotted names are free."""

MAX_EVENT_BYTES = 1024 * 1024
"""Default maximum size of an encoded event: 1 MiB."""


class AgentStatus(str, Enum):
    """Status of an agent. Each member equals its value: ``AgentStatus.BUSY == "busy"``."""

    ACTIVE = "active"
    IDLE = "idle"
    BUSY = "busy"
    ERROR = "error"

    def __str__(self) -> str:
        return self.value


class Event(NamedTuple):
    """One event, ready to be stored.

    The fields are in the order of the outbox's columns, so that storing it copies nothing.

    Attributes:
        event_id: UUIDv7, made by the call; receivers deduplicate by it.
        type: A type of the protocol, or another dotted name.
        timestamp_ms: Wall clock time of the call, Unix milliseconds.
        agent_id: The agent concerned, or None.
        session_id: The conversation concerned, or None.
        user_id: The user concerned, or None.
        data: The fields of the type as canonical JSON text.
        digest: SHA-256 of the event's canonical JSON, 64 hex digits.
    """

    event_id: str
    type: str
    timestamp_ms: int
    agent_id: str | None
    session_id: str | None
    user_id: str | None
    data: str
    digest: str


def make_event(
    type: str,
    data: Mapping[str, Any],
    *,
    agent_id: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    max_bytes: int = MAX_EVENT_BYTES,
) -> Event:
    """Return an event made of validated arguments.

    Raises:
        ValidationError: if the event cannot be encoded or exceeds `max_bytes` encoded.
    """
    event_id, timestamp_ms = new_id(), time.time_ns() // 1_000_000
    try:
        text = canonical.encode(data)
        whole = canonical.envelope(
            event_id, type, timestamp_ms, agent_id, session_id, user_id, text
        )
        digest = canonical.digest(whole)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(type, f"cannot be encoded as JSON: {error}") from error
    # A character has at most 4 bytes in UTF-8: only long events need to be counted exactly.
    if len(whole) * 4 > max_bytes and (size := len(whole.encode())) > max_bytes:
        raise ValidationError(
            _largest(data) or type,
            f"makes an event of {size:,} bytes; at most {max_bytes:,} are allowed "
            "(max_event_bytes). Shorten it, or store it elsewhere and log a reference",
        )
    return Event(event_id, type, timestamp_ms, agent_id, session_id, user_id, text, digest)


def _largest(data: Mapping[str, Any]) -> str:
    return max(data, key=lambda name: len(canonical.encode(data[name])), default="")

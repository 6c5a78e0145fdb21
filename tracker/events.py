"""`Event`: the event of a logging call, encoded and hashed before any lock is taken."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import canonical
from tracker.errors import ValidationError
from tracker.ids import new_id_and_salt

if TYPE_CHECKING:
    from collections.abc import Mapping

CONVERSATION_STARTED = "conversation.started"
CONVERSATION_RESUMED = "conversation.resumed"
CONVERSATION_ENDED = "conversation.ended"
CONVERSATION_FAILED = "conversation.failed"
MESSAGE_LOGGED = "message.logged"
TOOL_CALLED = "tool.called"
FEEDBACK_RECORDED = "feedback.recorded"
SCORE_RECORDED = "score.recorded"
LLM_USED = "llm.used"
SPAN_RECORDED = "span.recorded"
OTEL_SPAN = "otel.span"
OTEL_SPAN_STARTED = "otel.span_started"
OTEL_LOG = "otel.log"
AGENT_REGISTERED = "agent.registered"
AGENT_STATUS_CHANGED = "agent.status_changed"
AGENT_ACTIVITY = "agent.activity"
AGENT_HEARTBEAT = "agent.heartbeat"
SECURITY_REPORTED = "security.reported"
COMPLIANCE_AUDITED = "compliance.audited"
COMPLIANCE_ACKNOWLEDGED = "compliance.acknowledged"
COMPLIANCE_ERASED = "compliance.erased"
EVENTS_DISCARDED = "events.discarded"
INTEGRITY_CHECKPOINT = "integrity.checkpoint"
INTEGRITY_KEY_CHANGED = "integrity.key_changed"

OTEL = frozenset({OTEL_SPAN, OTEL_SPAN_STARTED, OTEL_LOG})
"""What comes from OpenTelemetry; `tracker.otel` describes the fields."""

VOCABULARY = frozenset(
    {
        CONVERSATION_STARTED,
        CONVERSATION_RESUMED,
        CONVERSATION_ENDED,
        CONVERSATION_FAILED,
        MESSAGE_LOGGED,
        TOOL_CALLED,
        FEEDBACK_RECORDED,
        SCORE_RECORDED,
        LLM_USED,
        SPAN_RECORDED,
        *OTEL,
        AGENT_REGISTERED,
        AGENT_STATUS_CHANGED,
        AGENT_ACTIVITY,
        AGENT_HEARTBEAT,
        SECURITY_REPORTED,
        COMPLIANCE_AUDITED,
        COMPLIANCE_ACKNOWLEDGED,
        COMPLIANCE_ERASED,
        EVENTS_DISCARDED,
        INTEGRITY_CHECKPOINT,
        INTEGRITY_KEY_CHANGED,
    }
)
"""The event types of the protocol, whose fields are defined; other dotted names are free."""

MAX_EVENT_BYTES = 1024 * 1024
"""Default maximum size of an encoded event: 1 MiB."""


_USER_BYTES = 4_096
"""More than a user id takes in an envelope, with its name."""


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

    The fields are in the order in which they are stored, so that storing it copies nothing.

    Attributes:
        event_id: UUIDv7, made by the call; receivers deduplicate by it.
        type: A type of the protocol, or another dotted name.
        timestamp_ms: Wall clock time of the call, Unix milliseconds.
        agent_id: The agent concerned, or None.
        session_id: The conversation concerned, or None.
        user_id: The user concerned, or None.
        data: The fields of the type as canonical JSON text.
        digest: Of all of the event, 64 hex digits, as the protocol defines it.
        context: What holds for every event of a process, as canonical JSON text, or None.
        trace: The span that it belongs to, as canonical JSON text, or None.
        salt: 16 random bytes, so that nobody can find out from the digest what was erased. None in
            an event of before there were salts, and after an erasure.
        sealed: After an erasure, the 64 bytes that stand for user and data in the digest.
    """

    event_id: str
    type: str
    timestamp_ms: int
    agent_id: str | None
    session_id: str | None
    user_id: str | None
    data: str
    digest: str
    context: str | None = None
    trace: str | None = None
    salt: bytes | None = None
    sealed: bytes | None = None

    @property
    def is_intact(self) -> bool:
        """Whether it has its digest: it, or what an erasure has left of it, is what was logged.

        In a damaged file, its values may be of any type.
        """
        return canonical.matches(*self)

    def head(self) -> str:
        """Return the canonical JSON of what stays of it after an erasure."""
        return canonical.head(*self[:5], self.context, self.trace)

    def wire(self, seq: int, chain: str) -> str:
        """Return it as it is sent and exported, as JSON, with its seq and chain value.

        Raises:
            TypeError, ValueError, AttributeError: if it is damaged.
        """
        said = canonical.whole(self.head(), self.user_id, self.data)
        secret = ""
        if self.salt is not None:
            secret = f',"salt":"{self.salt.hex()}"'
        elif self.sealed is not None:
            secret = f',"sealed":"{self.sealed.hex()}"'
        return f'{said[:-1]},"seq":{seq},"digest":"{self.digest}","chain":"{chain}"{secret}}}'


def make_event(
    type: str,
    data: Mapping[str, Any],
    *,
    agent_id: str | None = None,
    session_id: str | None = None,
    user_id: str | None = None,
    context: str | None = None,
    trace: str | None = None,
    max_bytes: int = MAX_EVENT_BYTES,
    timestamp_ms: int | None = None,
) -> Event:
    """Return an event made of validated arguments; `context` and `trace` are canonical JSON text.

    Its time is now unless `timestamp_ms` is given.

    Raises:
        ValidationError: if the event cannot be encoded or exceeds `max_bytes` encoded.
    """
    event_id, salt = new_id_and_salt()
    if timestamp_ms is None:
        timestamp_ms = time.time_ns() // 1_000_000
    try:
        text = canonical.encode(data)
        head = canonical.head(event_id, type, timestamp_ms, agent_id, session_id, context, trace)
        digest = canonical.salted_digest(head, canonical.seal(user_id, text, salt))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(type, f"cannot be encoded as JSON: {error}") from error
    event = Event(
        event_id, type, timestamp_ms, agent_id, session_id, user_id, text, digest, context, trace,
        salt,
    )  # fmt: skip
    # A character has at most 4 bytes in UTF-8: only long events need to be counted exactly.
    if (len(text) + len(head)) * 4 > max_bytes - _USER_BYTES:
        _check_size(event, data, max_bytes)
    return event


def from_wire(sent: Mapping[str, Any]) -> Event:
    """Return the event in an object of the protocol, whose values may be of any type.

    Raises:
        KeyError, TypeError, ValueError, RecursionError: if it is no event.
    """
    context, trace = (None if name not in sent else canonical.encode(sent[name])
                      for name in ("context", "trace"))  # fmt: skip
    salt, sealed = (None if name not in sent else bytes.fromhex(sent[name])
                    for name in ("salt", "sealed"))  # fmt: skip
    return Event(
        sent["event_id"],
        sent["type"],
        sent["timestamp_ms"],
        sent["agent_id"],
        sent["session_id"],
        sent["user_id"],
        canonical.encode(sent["data"]),
        sent["digest"],
        context,
        trace,
        salt,
        sealed,
    )


def size_of(event: Event) -> int:
    """Return how many bytes `max_event_bytes` takes an event for: those of its envelope."""
    return len(canonical.whole(event.head(), event.user_id, event.data).encode())


def _check_size(event: Event, data: Mapping[str, Any], max_bytes: int) -> None:
    if (size := size_of(event)) > max_bytes:
        raise ValidationError(
            _largest(data) or event.type,
            f"makes an event of {size:,} bytes; at most {max_bytes:,} are allowed "
            "(max_event_bytes). Shorten it, or store it elsewhere and log a reference",
        )


def _largest(data: Mapping[str, Any]) -> str:
    return max(data, key=lambda name: len(canonical.encode(data[name])), default="")

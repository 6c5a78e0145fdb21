"""Models of requests and answers, for the description of the API at ``/openapi.json``.

Answers are not made with them, since an event's data is returned as it was stored.
"""
# No `from __future__ import annotations`: FastAPI reads the annotations at run time.

from dataclasses import dataclass
from typing import Any, Literal

from tracker.collector.batch import MAX_EVENTS, PROTOCOL
from tracker.collector.conversation import Conversation as Summary
from tracker.collector.cosigning import State
from tracker.collector.erasures import Erasure
from tracker.collector.integrity import OutboxReport
from tracker.collector.tables import MAX_ID_LENGTH
from tracker.queries.agents import AgentActivity, AgentState
from tracker.queries.conversations import Conversation
from tracker.queries.history import HistoryEntry
from tracker.queries.metrics import Metrics
from tracker.queries.scores import Score, ScoreSummary
from tracker.queries.usage import LLMUsage


@dataclass(frozen=True)
class Problem:
    """The problem with a request, as a code for programs and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True)
class Refusal:
    """The body of any answer other than 200."""

    error: Problem


@dataclass(frozen=True)
class Health:
    """The state of the collector."""

    status: Literal["ok", "ready"]


@dataclass(frozen=True)
class Ping:
    """The protocol version of the collector."""

    protocol: Literal[1]


@dataclass(frozen=True)
class Rejected:
    """An event that is not stored."""

    event_id: str
    code: str
    message: str


@dataclass(frozen=True)
class CosignedHead:
    """A head that the collector cosigned: size and root of the tree, and the signed note."""

    size: int
    root: str
    note: str


@dataclass(frozen=True)
class Receipt:
    """The receipt for a batch.

    `highest_seq` is the highest that is stored of the outbox. `warning` is only there if two events
    of the outbox have one seq, or a head contradicts another. `witness` is the newest head of the
    outbox that was cosigned, and is only there if there is one.
    """

    protocol: Literal[1]
    first_event_id: str
    last_event_id: str
    accepted: int
    duplicates: int
    rejected: list[Rejected]
    highest_seq: int
    warning: Literal["forked"] | None = None
    witness: CosignedHead | None = None


@dataclass(frozen=True)
class Event:
    """An event as it was received; `id` increases in the order of receipt.

    `context`, `trace`, `salt` and `sealed` are left out where the event has none.
    """

    id: int
    client_id: str
    outbox_id: str
    seq: int
    event_id: str
    type: str
    timestamp_ms: int
    agent_id: str | None
    session_id: str | None
    user_id: str | None
    digest: str
    chain: str
    received_at_ms: int
    sent_at_ms: int
    data: dict[str, Any]
    context: dict[str, Any] | None = None
    trace: dict[str, Any] | None = None
    salt: str | None = None
    sealed: str | None = None


@dataclass(frozen=True)
class EventPage:
    """Events in the order of receipt; `next` is the `after` of the next page, null at the end.

    `next` is opaque: its form may change. No event ever appears before one that was listed.
    """

    next: int | None
    events: list[Event]


@dataclass(frozen=True)
class Session(Summary):
    """One session, and a page of its events; `next` is the `after` of the next page."""

    next: str | None
    events: list[Event]


@dataclass(frozen=True)
class Outbox(OutboxReport):
    """The events received from one outbox, and whether they are complete and unchanged."""

    outbox_id: str = ""
    client_id: str = ""


@dataclass(frozen=True)
class Outboxes:
    """A client's outboxes in the order of first receipt.

    `next` is the `after` of the next page. A page may have fewer outboxes than its limit.
    """

    outboxes: list[Outbox]
    next: str | None


@dataclass(frozen=True)
class Refused:
    """A refused event; `seq` is 0 and `event_id` empty if it had none."""

    outbox_id: str
    seq: int
    event_id: str
    code: str
    message: str
    rejected_at_ms: int


@dataclass(frozen=True)
class Rejections:
    """Refused events, the newest first; `next` is the `before` of the next page."""

    rejections: list[Refused]
    next: int | None


@dataclass(frozen=True)
class Link:
    """An event's place in the hash chain of its outbox."""

    seq: int
    event_id: str
    digest: str
    chain: str


@dataclass(frozen=True)
class ChainPage:
    """Links of an outbox's chain by seq; none at its end."""

    events: list[Link]


@dataclass(frozen=True)
class Checkpoint:
    """A head that a device sent, and what became of it.

    `seq` is the number of the event that said it. `note` has the cosignature if `state` is
    ``cosigned``. `timestamp` is a reply of RFC 3161 over that note in base64, received at
    `stamped_at_ms`.
    """

    id: int
    seq: int
    size: int
    root: str
    state: State
    note: str
    received_at_ms: int
    timestamp: str | None
    stamped_at_ms: int | None


@dataclass(frozen=True)
class CheckpointPage:
    """Heads in the order of receipt; `next` is the `after` of the next page, null at the end."""

    checkpoints: list[Checkpoint]
    next: int | None


@dataclass(frozen=True)
class Consistency:
    """The proof that the tree of `size` events extends the one of `old_size`, as 64 hex digits."""

    old_size: int
    size: int
    consistency: list[str]


@dataclass(frozen=True)
class Inclusion:
    """The proof that an event's digest is in the tree of `size` events; hashes as 64 hex digits."""

    seq: int
    size: int
    digest: str
    root: str
    inclusion: list[str]


@dataclass(frozen=True)
class Clients:
    """Client ids; `next` is the `after` of the next page, null at the end."""

    clients: list[str]
    next: str | None


@dataclass(frozen=True)
class History:
    """Messages and tool calls in the order of logging; `next` is the `before` of earlier ones.

    `scores` has the newest 100 scores of the conversation as a whole and of its traces.
    """

    session_id: str
    entries: list[HistoryEntry]
    next: int | None
    scores: list[Score]


@dataclass(frozen=True)
class Conversations:
    """Conversations in the order they began; `next` is the `before` of earlier ones.

    A page can hold fewer than its limit, or none, while there is a `next`: a look takes about half
    a second at most. `looked_back_to_ms` then says how far back it went.
    """

    conversations: list[Conversation]
    next: int | None
    looked_back_to_ms: int | None = None


@dataclass(frozen=True)
class Agents:
    """Agents in the order of their ids; `next` is the `after` of the next page."""

    agents: list[AgentState]
    next: str | None


@dataclass(frozen=True)
class Activities:
    """Activities of agents, newest first; `next` is the `before` of the next page."""

    activities: list[AgentActivity]
    next: int | None


@dataclass(frozen=True)
class Usage:
    """Sums in the order of `get_usage`; `next` is the `offset` of the next page."""

    usage: list[LLMUsage]
    next: int | None


@dataclass(frozen=True)
class Scores:
    """Summaries in the order of `get_scores`; `next` is the `offset` of the next page."""

    scores: list[ScoreSummary]
    next: int | None


@dataclass(frozen=True)
class MetricsPage(Metrics):
    """Total metrics and those of the newest days or hours; `next` is the `until` for earlier ones.

    `outcomes` has the 100 most frequent ones, in total and of each step, and `scores` the 100 names
    with the most.
    """

    next: int | None = None


@dataclass(frozen=True)
class Erasures:
    """Erasures, newest first; `next` is the `before` of the next page."""

    erasures: list[Erasure]
    next: int | None


ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "The request cannot be understood."},
    401: {"model": Refusal, "description": "The API key is missing, unknown, revoked or expired."},
    403: {"model": Refusal, "description": "The API key is not allowed to do this."},
    404: {"model": Refusal, "description": "Not found."},
    422: {"model": Refusal, "description": "An argument is not allowed."},
    503: {
        "model": Refusal,
        "description": "The database failed, or the collector is busy.",
    },
}
"""Error answers of all routes that need a key."""

INGEST_ERRORS: dict[int | str, dict[str, Any]] = {
    408: {"model": Refusal, "description": "The body did not arrive in time."},
    409: {"model": Refusal, "description": "The protocol version is not supported."},
    413: {"model": Refusal, "description": "The body is too large."},
    415: {"model": Refusal, "description": "The body's encoding is neither gzip nor identity."},
    429: {"model": Refusal, "description": "Too many requests; see Retry-After."},
}
"""Additional error answers to a batch."""


@dataclass(frozen=True)
class OTLPStatus:
    """A ``google.rpc.Status``, which is how OTLP answers anything other than 200."""

    message: str


@dataclass(frozen=True)
class RejectedSpans:
    """How many spans of a request are not stored, a number as text, and why."""

    rejectedSpans: str  # noqa: N815 - OTLP's name
    errorMessage: str  # noqa: N815 - OTLP's name


@dataclass(frozen=True)
class TracesAnswer:
    """OTLP's ``ExportTraceServiceResponse``."""

    partialSuccess: RejectedSpans | None = None  # noqa: N815 - OTLP's name


@dataclass(frozen=True)
class RejectedLogRecords:
    """How many log records of a request are not stored, a number as text, and why."""

    rejectedLogRecords: str  # noqa: N815 - OTLP's name
    errorMessage: str  # noqa: N815 - OTLP's name


@dataclass(frozen=True)
class LogsAnswer:
    """OTLP's ``ExportLogsServiceResponse``."""

    partialSuccess: RejectedLogRecords | None = None  # noqa: N815 - OTLP's name


OTLP_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "model": OTLPStatus,
        "description": described,
        "content": {"application/x-protobuf": {}},
    }
    for status, described in (
        (400, "The body cannot be read."),
        (401, "The API key is missing, unknown, revoked or expired."),
        (403, "The API key is not allowed to do this."),
        (413, "The body, or what would be stored of it, is too large."),
        (415, "The body is neither protobuf nor JSON, or is encoded in an unknown way."),
        (422, "A header is not allowed."),
        (429, "Too many requests; see Retry-After."),
        (501, "The collector is installed without opentelemetry-proto."),
        (503, "The database failed, the collector is busy, or the body did not arrive in time."),
    )
}
"""Error answers of the routes for OTLP."""


def otlp_body(request: str) -> dict[str, Any]:
    """Return the description of a body with one of OTLP's requests."""
    schema = {"type": "object", "description": f"OTLP's {request}."}
    content = {form: {"schema": schema} for form in ("application/x-protobuf", "application/json")}
    return {"requestBody": {"required": True, "content": content}}


_ID = {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_ID_LENGTH}
_UUID = {"type": "string", "format": "uuid"}
_HEX = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_EVENT_SENT = {
    "event_id": _UUID,
    "seq": {"type": "integer", "minimum": 1},
    "type": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
    "timestamp_ms": {"type": "integer", "minimum": 0},
    "agent_id": _ID,
    "session_id": _ID,
    "user_id": _ID,
    "data": {"type": "object"},
    "digest": _HEX,
    "chain": _HEX,
}
_EVENT_OPTIONAL = {
    "context": {"type": "object"},
    "trace": {"type": "object"},
    "salt": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "sealed": {"type": "string", "pattern": "^[0-9a-f]{128}$"},
}
_BATCH_SENT = {
    "protocol": {"const": PROTOCOL},
    "client_id": {"type": "string"},
    "outbox_id": _UUID,
    "sent_at_ms": {"type": "integer", "minimum": 0},
    "events": {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_EVENTS,
        "items": {
            "type": "object",
            "properties": {**_EVENT_SENT, **_EVENT_OPTIONAL},
            "required": [*_EVENT_SENT],
        },
    },
}
BATCH: dict[str, Any] = {
    "parameters": [
        {
            "name": "X-Client-ID",
            "in": "header",
            "required": True,
            "description": "The client of the key.",
            "schema": {"type": "string"},
        }
    ],
    "security": [{"HTTPBearer": []}],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": _BATCH_SENT,
                    "required": [*_BATCH_SENT],
                }
            }
        },
    },
}
"""What a batch is sent with; the route reads it itself, with limits."""

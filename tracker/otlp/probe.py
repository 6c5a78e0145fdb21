"""`Probe`: what shows whether a receiver accepts anything at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tracker.otlp import ids, names
from tracker.otlp.encode import Batch, Source
from tracker.otlp.logs import record_of
from tracker.otlp.spans import Draft

if TYPE_CHECKING:
    from tracker.otlp.encode import Signal

_NAME = "tracker.connected"


class Probe(NamedTuple):
    """The span or log record ``tracker.connected``: always the same one for a sender of events.

    Attributes:
        client_id: Whose events are sent.
        sender_id: What sends them, such as the id of an outbox.
        created_at_ms: When that was created, Unix milliseconds.
        source: The resource and scope.
    """

    client_id: str
    sender_id: str
    created_at_ms: int
    source: Source

    def batch(self, signal: Signal) -> Batch:
        """Return it as the contents of a request."""
        trace_id = ids.trace_of_event(self.client_id, self.sender_id)
        span_id = ids.span_of_event(self.client_id, self.sender_id)
        batch = Batch(signal)
        if signal == "traces":
            at = self.created_at_ms
            said = {names.KIND: "CHAIN", names.EVENT_TYPE: _NAME}
            draft = Draft(trace_id, span_id, None, _NAME, at, at, said)
            batch.add(self.source, draft.message())
        else:
            event: dict[str, Any] = dict.fromkeys(("agent_id", "session_id", "user_id"))
            event |= {"event_id": self.sender_id, "type": _NAME, "data": {}}
            event["timestamp_ms"] = self.created_at_ms
            batch.add(self.source, record_of(event, trace_id, span_id))
        return batch

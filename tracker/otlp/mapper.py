"""`Mapper`: events, in the order of their seq, as spans and log records with their sources."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol

from tracker import log
from tracker._version import __version__
from tracker.once import Once
from tracker.otlp import ids, names, verbatim
from tracker.otlp.encode import Source
from tracker.otlp.logs import is_record, record_of, span_of_record
from tracker.otlp.mapping import about, is_erased, place, readable_event, spans_of
from tracker.otlp.turns import Conversation, advance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    from tracker.otlp.encode import Signal

    Message = Span | LogRecord

_MOST_CONVERSATIONS = 10_000
_MOST_CHARACTERS = 32 * 1024 * 1024
_CONVERSATION_CHARACTERS = 500
"""How many conversations, and about how much of their texts, are kept in memory; and about how much
a conversation takes besides."""
SCOPE = {"name": "tracker", "version": ".".join(__version__.split(".")[:2])}
"""The scope of spans made of events. Its version changes seldom: a span that is sent again after an
update has to be the same."""


class History(Protocol):
    """What is needed of where the events are kept, besides those to send."""

    def earlier(self, session_id: str, after: int, before: int) -> Iterable[dict[str, Any]]:
        """Return the events of a conversation with a seq between the two, in order.

        Those of the mapper's own outbox, as they are sent. What was changed on disk is left out, as
        it is never sent.
        """

    def newest_erasure(self) -> int | None:
        """Return what is another number whenever further events were erased, or None."""


class Mapper:
    """Makes spans and log records of events.

    What it makes of an event depends on the events of its conversation before it, and on nothing
    else: it keeps what it has seen, and reads the rest from where the events are.

    Args:
        client_id: Whose events they are.
        resource: Attributes of the resource of spans made of events.
        history: Reads earlier events.
        logs: Whether some types of events become log records instead of spans.
    """

    def __init__(
        self, client_id: str, resource: Mapping[str, Any], history: History, *, logs: bool
    ) -> None:
        self._client_id = client_id
        self._resource = dict(resource)
        self._history = history
        self._logs = logs
        self._known: OrderedDict[str, Conversation] = OrderedDict()
        self._characters = 0
        self._seen_from = self._seen_to = 0  # every event in between was passed
        self._last: tuple[int, str | None, Conversation] | None = None  # and the state before it
        self._erasure: int | None = None
        self._sources: dict[object, Source] = {}
        self._said = Once()

    @property
    def size(self) -> int:
        """About how many characters it keeps of conversations."""
        return self._characters + _CONVERSATION_CHARACTERS * len(self._known)

    def begin(self) -> None:
        """Begin a batch: forget what was erased since the last one."""
        erasure = self._history.newest_erasure()
        if erasure != self._erasure:
            self._known.clear()
            self._characters = 0
            self._last = None
        self._erasure = erasure

    def signal(self, event: Mapping[str, Any]) -> Signal:
        """Return what an event becomes."""
        return "logs" if self._logs and is_record(event["type"]) else "traces"

    def pass_over(self, event: dict[str, Any]) -> None:
        """Note an event that is not sent."""
        self._step(readable_event(event))

    def messages(self, event: dict[str, Any]) -> list[tuple[Source, Message]]:
        """Return what an event is sent as: at least one message."""
        event = readable_event(event)
        before, after = self._step(event)
        if event["type"] in ("otel.span", "otel.log") and not is_erased(event):
            try:
                return [self._verbatim(event, after)]
            except verbatim.FAULTS as fault:
                self._say(event, fault)
        source = self._source(event)
        if self.signal(event) == "logs":
            return [(source, record_of(event, *place(event, after, self._client_id)))]
        return [
            (source, draft.message()) for draft in spans_of(event, before, after, self._client_id)
        ]

    def _verbatim(self, event: dict[str, Any], after: Conversation) -> tuple[Source, Message]:
        data = event["data"]
        source = Source(data["resource"], data.get("scope"))
        if event["type"] == "otel.span":
            return source, verbatim.span(data)
        if self._logs:
            return source, verbatim.log_record(data)
        trace_id, parent_id = self._place_of_record(event, after)
        draft = span_of_record(event, trace_id, parent_id)
        draft.span_id = ids.span_of_event(self._client_id, event["event_id"])
        draft.attributes.update(about(event))
        return source, draft.message()

    def _place_of_record(
        self, event: Mapping[str, Any], after: Conversation
    ) -> tuple[str, str | None]:
        """Return the trace of a log record that came in and the span that it is in, or None."""
        data = event["data"]
        if "trace_id" in data:
            return data["trace_id"], data.get("span_id")
        return place(event, after, self._client_id)

    def _say(self, event: Mapping[str, Any], fault: Exception) -> None:
        if self._said.is_new(event["type"]):
            log.warning(
                "event %s of type %s does not have the fields of that type, and is sent as a span "
                "of its fields: %r",
                event["event_id"],
                event["type"],
                fault,
            )

    # --- resources --------------------------------------------------------------------------------

    def _source(self, event: Mapping[str, Any]) -> Source:
        context = event.get("context")
        key = None if context is None else repr(context)
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) > 1_000:
                self._sources.clear()
            source = Source({"attributes": {**self._resource, **_of_context(context)}}, SCOPE)
            self._sources[key] = source
        return source

    def source(self) -> Source:
        """Return the source of what is no event's."""
        return Source({"attributes": self._resource}, SCOPE)

    # --- conversations ----------------------------------------------------------------------------

    def _step(self, event: Mapping[str, Any]) -> tuple[Conversation, Conversation]:
        """Return the state of an event's conversation before and after it."""
        seq, session_id = event["seq"], event["session_id"]
        again = self._last is not None and self._last[:2] == (seq, session_id)
        if seq != self._seen_to + 1 and not again:
            self._seen_from = seq
        self._seen_to = seq
        if session_id is None:
            return Conversation(), Conversation()
        # Again: there was no room for it in the batch before.
        before = self._last[2] if again and self._last else self._before(session_id, seq)
        self._last = (seq, session_id, before)
        after = advance(before, event, self._client_id)
        self._keep(session_id, after)
        return before, after

    def _before(self, session_id: str, seq: int) -> Conversation:
        known = self._known.get(session_id)
        if known is None or known.through >= seq:
            known = Conversation()
        elif known.through >= self._seen_from - 1:
            return known  # every event since was passed, and none was of this conversation
        for event in self._history.earlier(session_id, known.through, seq):
            known = advance(known, readable_event(event), self._client_id)
        return known

    def _keep(self, session_id: str, state: Conversation) -> None:
        former = self._known.pop(session_id, None)
        self._characters += state.size - (0 if former is None else former.size)
        self._known[session_id] = state
        while len(self._known) > _MOST_CONVERSATIONS or (
            self._characters > _MOST_CHARACTERS and len(self._known) > 1
        ):
            _, dropped = self._known.popitem(last=False)
            self._characters -= dropped.size


def _of_context(context: Any) -> dict[str, Any]:
    """Return the context of an event as attributes of its resource."""
    if not isinstance(context, dict):
        return {}
    known = {"environment": names.ENVIRONMENT, "release": names.SERVICE_VERSION}
    found: dict[str, Any] = {}
    for name, value in context.items():
        if name == "tags" and isinstance(value, dict):
            found |= {f"{names.OWN}tag.{tag}": text for tag, text in value.items()}
        else:
            found[known.get(name, f"{names.OWN}context.{name}")] = value
    return found

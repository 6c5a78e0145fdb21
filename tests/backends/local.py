"""What the tracker's own reads tell of an outbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support import mapped
from tracker.events import OTEL_SPAN, OTEL_SPAN_STARTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tracker import Tracker
    from tracker.queries.history import HistoryEntry
    from tracker.queries.traces import TraceSpan


class Local(NamedTuple):
    """What the reads tell.

    Attributes:
        tokens: Tokens sent and received, by conversation.
        entries: The messages and tool calls of all conversations, by the ids of their events.
        asked: What the user said first, by conversation.
        parents: The parent of each span of OpenTelemetry, by trace and span.
    """

    tokens: dict[str, tuple[int, int]]
    entries: dict[str, HistoryEntry]
    asked: dict[str, str]
    parents: dict[tuple[str, str], str | None]


def read(tracker: Tracker, events: Iterable[dict[str, Any]]) -> Local:
    """Return what the reads tell of the conversations and traces of these events."""
    sessions = {event["session_id"] for event in events if event["session_id"]}
    traces = {event["data"]["trace_id"] for event in events if event["type"] == OTEL_SPAN}
    told = {each: tracker.get_conversation_history(each) for each in sessions}
    found = [(trace_id, tracker.get_trace(trace_id)) for trace_id in sorted(traces)]
    return Local(
        {
            used.key: (used.prompt_tokens, used.completion_tokens)
            for used in tracker.llm.get_usage("session")
            if used.key is not None
        },
        {entry.event_id: entry for history in told.values() for entry in history},
        {
            session_id: asked[0]
            for session_id, history in told.items()
            if (asked := [said for entry in history if (said := _asked(entry)) is not None])
        },
        {
            (trace_id, span.span_id): span.parent_span_id
            for trace_id, trace in found
            if trace is not None
            for span in _all(trace.spans)
            if span.kind == "otel"
        },
    )


def _asked(entry: HistoryEntry) -> str | None:
    return entry.content if entry.role == "user" else entry.prompt


def _all(spans: Iterable[TraceSpan]) -> Iterator[TraceSpan]:
    for span in spans:
        yield span
        yield from _all(span.children)


def sent_spans(events: Iterable[dict[str, Any]]) -> dict[tuple[str, str], str | None]:
    """Return the spans that one process makes of all events, with their parents."""
    events = list(events)
    mapper = mapped.mapper(events)
    mapper.begin()
    found = []
    for event in events:
        if event["type"] == OTEL_SPAN_STARTED:
            mapper.pass_over(event)
        else:
            found += [message for _, message in mapper.messages(event)]
    return {
        (span.trace_id.hex(), span.span_id.hex()): span.parent_span_id.hex() or None
        for span in found
    }

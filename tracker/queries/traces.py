"""Traces: the spans that belong together, as trees, with what was logged inside each."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from tracker import canonical
from tracker.errors import ValidationError
from tracker.events import (
    CONVERSATION_ENDED,
    CONVERSATION_FAILED,
    OTEL_SPAN,
    OTEL_SPAN_STARTED,
    SPAN_RECORDED,
    TOOL_CALLED,
)
from tracker.queries.conversations import fields, text
from tracker.queries.failure import Failure, failure_of
from tracker.queries.figures import NANOSECONDS, figure, nanoseconds, span_duration
from tracker.queries.source import EVENTS, newest_page, of_trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, FromClause

FUNCTION_OBSERVED = "function.observed"
_KINDS = {
    SPAN_RECORDED: "span",
    FUNCTION_OBSERVED: "function",
    TOOL_CALLED: "tool",
    OTEL_SPAN: "otel",
}
_ENDS = (CONVERSATION_ENDED, CONVERSATION_FAILED)
_TRACE_ID = re.compile(r"[0-9a-f]{32}")

MOST_EVENTS = 10_000
"""Default maximum number of events of a trace that is read."""
MOST_LEVELS = 100
"""Spans that are deeper are shown at this level: JSON of any depth could not be read back."""


@dataclass(frozen=True)
class TraceEvent:
    """An event that was logged inside of a span.

    Attributes:
        seq: Its position in the outbox.
        event_id: Its id.
        type: Its type.
        timestamp_ms: Time when it was logged, Unix milliseconds.
        agent_id: The agent concerned, or None.
        session_id: The conversation concerned, or None.
        data: Its fields; None if they were erased, or the row is damaged.
    """

    seq: int
    event_id: str
    type: str
    timestamp_ms: int
    agent_id: str | None
    session_id: str | None
    data: dict[str, Any] | None


@dataclass(frozen=True)
class TraceSpan:
    """A span of a trace. Values that were not logged are None.

    Attributes:
        span_id: Its id.
        parent_span_id: The enclosing span. That of a span without parent in the tree was recorded
            elsewhere, has not ended yet, or was pruned.
        kind: ``"span"``, ``"function"``, ``"tool"``, ``"otel"`` for a span of OpenTelemetry,
            ``"conversation"``, ``"turn"`` of a conversation, or ``"unknown"`` if only what was
            logged inside is stored here.
        name: Its name.
        started_at_ms: Time of its start, Unix milliseconds: that of its end minus its duration.
        duration_ms: Milliseconds it took; for a turn and an unknown span, from the first to the
            last that is known of it. None for one that has not ended.
        error: Why it failed.
        error_type: The type of the exception.
        traceback: Where the exception came from.
        agent_id: The agent concerned.
        session_id: The conversation concerned.
        input: What it was given; the arguments of a function or tool.
        output: What came of it; the result of a function or tool.
        attributes: More values by name.
        seq: The position in the outbox of the event that recorded it.
        event_id: That event's id.
        erased: Whether its data was erased.
        events: What was logged inside it, in order.
        children: The spans inside it, in the order of their start.
        start: The start of a span of OpenTelemetry, nanoseconds since 1970 as text.
        end: Its end, likewise.
        status: What it says of itself: ``"ok"``, ``"error"``, or nothing.
    """

    span_id: str
    parent_span_id: str | None = None
    kind: str = "unknown"
    name: str | None = None
    started_at_ms: int = 0
    duration_ms: float | None = None
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    input: Any = None
    output: Any = None
    attributes: dict[str, Any] | None = None
    seq: int | None = None
    event_id: str | None = None
    erased: bool = False
    events: tuple[TraceEvent, ...] = ()
    children: tuple[TraceSpan, ...] = ()
    start: str | None = None
    end: str | None = None
    status: str | None = None


@dataclass(frozen=True)
class Trace:
    """A trace, as far as it is stored here.

    Attributes:
        trace_id: Its id.
        started_at_ms: Start of its first span, Unix milliseconds.
        duration_ms: Milliseconds from there to its last end.
        complete: Whether all its stored events were read; see the limit.
        spans: The spans without a parent in this trace, in the order of their start.
    """

    trace_id: str
    started_at_ms: int
    duration_ms: float
    complete: bool
    spans: tuple[TraceSpan, ...]


def check_trace_id(argument: str, value: object) -> str:
    """Return a trace id in lower case.

    Raises:
        ValidationError: if it is not 32 hex digits.
    """
    if not (isinstance(value, str) and _TRACE_ID.fullmatch(value.lower())):
        raise ValidationError(argument, f"is {value!r:.80}; give the 32 hex digits of a trace id")
    return value.lower()


def get_trace(
    connection: Connection,
    trace_id: str,
    limit: int | None = MOST_EVENTS,
    max_characters: int | None = None,
    events: FromClause = EVENTS,
) -> Trace | None:
    """Return a trace; None if no event of it is stored.

    Args:
        connection: A connection to the database.
        trace_id: Its id.
        limit: Read only so many of its newest events; None for all.
        max_characters: Read only so many characters of their data; None for no limit.
        events: The table of events.
    """
    column = events.c
    query = select(
        column.seq, column.event_id, column.type, column.timestamp_ms, column.agent_id,
        column.session_id, column.trace, column.data,
    ).where(*of_trace(connection, events, trace_id))  # fmt: skip
    rows, more = newest_page(connection, events, query, limit, max_characters=max_characters)
    return _tree(trace_id, rows[::-1], complete=more is None) if rows else None


class _Node:
    """A span while its tree is made."""

    def __init__(self, span_id: str, parent: str | None, place: int) -> None:
        self.span_id = span_id
        self.parent = parent
        self.place = place
        self.is_turn = False
        self.own: TraceEvent | None = None
        self.events: list[TraceEvent] = []
        self.children: list[_Node] = []

    @property
    def is_step(self) -> bool:
        """Whether its own event, which is known, cannot have been logged inside of another span."""
        return self.own is not None and self.own.type in _KINDS

    def add(self, event: TraceEvent, parent: str | None) -> None:
        """Add an event that names this span: its own, or one that was logged inside it."""
        if event.type == OTEL_SPAN_STARTED:  # all that is known until it ends
            if self.own is None:
                self.own, self.parent = event, parent
            return
        may_be_own = event.type in _KINDS or (event.type in _ENDS and parent is not None)
        if not may_be_own or self.is_step:
            self.events.append(event)
            return
        # The end of a conversation inside the span.
        if self.own is not None and self.own.type != OTEL_SPAN_STARTED:
            self.events.append(self.own)
        self.own, self.parent = event, parent


def _tree(trace_id: str, rows: Iterable[Sequence[Any]], *, complete: bool) -> Trace:
    nodes = _nodes(rows)
    roots = _arrange(nodes)
    spans = _built(roots)
    first = min(span.started_at_ms for span in spans)
    last = max(map(_span_end, spans))
    return Trace(trace_id, first, round(last - first, 2), complete, tuple(spans))


def _nodes(rows: Iterable[Sequence[Any]]) -> list[_Node]:
    """Return the spans that the rows name, each with its own event and those inside it."""
    nodes: list[_Node] = []
    by_id: dict[str, _Node] = {}
    for *columns, trace, stored in rows:
        ids, event = _decoded(trace) or {}, _event(columns, _decoded(stored))
        span_id, parent = text(ids.get("span_id")) or "", text(ids.get("parent_span_id"))
        node = by_id.get(span_id)
        # Two steps with one id are an error, or forged: both are shown.
        if node is None or (event.type in _KINDS and node.is_step):
            node = _Node(span_id, parent, len(nodes))
            by_id.setdefault(span_id, node)
            nodes.append(node)
        node.add(event, parent)
        node.is_turn = node.is_turn or ids.get("turn") is True
    return nodes


def _event(columns: Sequence[Any], data: dict[str, Any] | None) -> TraceEvent:
    seq, event_id, type_, timestamp_ms, agent_id, session_id = columns
    return TraceEvent(
        seq,
        event_id,
        type_,
        timestamp_ms if isinstance(timestamp_ms, int) else 0,  # a damaged row has any type
        agent_id,
        session_id,
        None if data == {"erased": True} else data,
    )


def _arrange(nodes: list[_Node]) -> list[_Node]:
    """Put each span below its parent, and return those without one."""
    by_id: dict[str, _Node] = {}
    for node in nodes:
        by_id.setdefault(node.span_id, node)
    parents = {node: by_id.get(node.parent) if node.parent else None for node in nodes}
    for node, parent in parents.items():
        if parent is not None:
            parent.children.append(node)
    roots = [node for node in nodes if parents[node] is None]
    reached: set[_Node] = set()
    for node in [*roots, *nodes]:  # spans in a circle are reached from no root
        if node in reached:
            continue
        if parents[node] is not None:
            roots.append(node)
        _cut_off(node, reached)
    return roots


def _cut_off(root: _Node, reached: set[_Node]) -> None:
    """Keep below a root only what is not reached already: no span is inside of itself."""
    reached.add(root)
    waiting = [root]
    while waiting:
        node = waiting.pop()
        node.children = [child for child in node.children if child not in reached]
        reached.update(node.children)
        waiting += node.children


def _built(roots: list[_Node]) -> list[TraceSpan]:
    """Return the spans of a forest, at most `MOST_LEVELS` deep."""
    order: list[tuple[_Node, _Node | None, int]] = []
    waiting: list[tuple[_Node, _Node | None, int]] = [(node, None, 0) for node in roots]
    while waiting:
        node, holder, level = waiting.pop()
        order.append((node, holder, level))
        deep = level + 1 >= MOST_LEVELS
        waiting += [(child, holder if deep else node, level if deep else level + 1)
                    for child in node.children]  # fmt: skip
    below: dict[_Node | None, list[tuple[int, int, TraceSpan]]] = {}
    for node, holder, _ in reversed(order):
        span = _span(node, _in_order(below.pop(node, [])))
        below.setdefault(holder, []).append((span.started_at_ms, node.place, span))
    return list(_in_order(below[None]))


def _in_order(spans: list[tuple[int, int, TraceSpan]]) -> tuple[TraceSpan, ...]:
    return tuple(span for *_, span in sorted(spans, key=lambda each: each[:2]))


def _span(node: _Node, children: tuple[TraceSpan, ...]) -> TraceSpan:
    own = node.own
    if own is None:
        return _without_event(node, children)
    if own.type in (OTEL_SPAN, OTEL_SPAN_STARTED):
        return _otel_span(node, own, children)
    data = own.data or {}
    is_end = own.type in _ENDS
    attributes = data.get("attributes")
    return TraceSpan(
        node.span_id,
        node.parent,
        "conversation" if is_end else _KINDS[own.type],
        own.agent_id if is_end else text(data.get("name")),
        math.ceil(_start(own)),  # times are cut off to milliseconds
        figure("duration_ms", data.get("duration_ms")),
        text(data.get("error_message" if is_end else "error")),
        text(data.get("error_type")),
        text(data.get("traceback")),
        own.agent_id,
        own.session_id,
        data.get("arguments", data.get("input")),
        data.get("result", data.get("output")),
        attributes if isinstance(attributes, dict) else None,
        own.seq,
        own.event_id,
        own.data is None,
        tuple(node.events),
        children,
    )


def _otel_span(node: _Node, own: TraceEvent, children: tuple[TraceSpan, ...]) -> TraceSpan:
    data = own.data or {}
    attributes, status = fields(data.get("attributes")), fields(data.get("status"))
    code, failed = text(status.get("code")), failure_of(data) or Failure()
    return TraceSpan(
        node.span_id,
        node.parent,
        _KINDS[OTEL_SPAN],
        text(data.get("name")),
        int(_start(own)),
        span_duration(data),
        failed.error,
        failed.error_type,
        failed.traceback,
        own.agent_id,
        own.session_id,
        attributes=attributes or None,
        seq=own.seq,
        event_id=own.event_id,
        erased=own.data is None,
        events=tuple(node.events),
        children=children,
        start=_time(data.get("start")),
        end=_time(data.get("end")),
        status=code,
    )


def _time(value: Any) -> str | None:
    """Return a time as it is stored; None if it is damaged."""
    return None if nanoseconds(value) is None else str(value)


def _without_event(node: _Node, children: tuple[TraceSpan, ...]) -> TraceSpan:
    """Return a span that no event records: a turn, or one of which only the inside is known."""
    # The end of a conversation tells how long all of it took, and not this turn.
    starts = [_start(event) for event in node.events if event.type not in _ENDS]
    ends = [event.timestamp_ms for event in node.events]
    first = min([*starts, *ends, *(child.started_at_ms for child in children)])
    last = max([*ends, *map(_span_end, children)])
    about = next((event for event in node.events if event.session_id is not None), None)
    failure = next((event for event in node.events if event.type == CONVERSATION_FAILED), None)
    failed = (failure.data if failure else None) or {}
    return TraceSpan(
        node.span_id,
        node.parent,
        "turn" if node.is_turn else "unknown",
        about.agent_id if node.is_turn and about else None,
        int(first),
        round(last - first, 2),
        text(failed.get("error_message")),
        text(failed.get("error_type")),
        text(failed.get("traceback")),
        about.agent_id if about else None,
        about.session_id if about else None,
        events=tuple(node.events),
        children=children,
    )


def _start(event: TraceEvent) -> float:
    """Return when what an event tells of began, Unix milliseconds."""
    if event.type in (OTEL_SPAN, OTEL_SPAN_STARTED):
        start = nanoseconds((event.data or {}).get("start"))
        return event.timestamp_ms if start is None else start // NANOSECONDS
    took = (event.data or {}).get("duration_ms" if event.type != "llm.used" else "latency_ms")
    return event.timestamp_ms - (figure("duration_ms", took) or 0)


def _span_end(span: TraceSpan) -> float:
    return span.started_at_ms + (span.duration_ms or 0)


def _decoded(stored: object) -> dict[str, Any] | None:
    """Return an object of a row; None if the row is damaged."""
    try:
        value = canonical.decode(stored)  # type: ignore[arg-type]  # a damaged row has any type
    except ValueError:
        return None
    return value if isinstance(value, dict) else None

"""Which stored events are about a user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tracker import canonical
from tracker.erasure import ERASED
from tracker.events import COMPLIANCE_ERASED, SCORE_RECORDED, SPAN_RECORDED, TOOL_CALLED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

# An event without a user belongs to the users of its conversation.
_NAMED = """
SELECT event_id, trace FROM events
WHERE type != ? AND (user_id = ? OR (user_id IS NULL AND session_id IN (
          SELECT session_id FROM events WHERE user_id = ?)))
      AND data != ?
ORDER BY seq
"""
_UNNAMED = """
SELECT event_id, type, trace, CASE WHEN type = ? THEN data END FROM events
WHERE user_id IS NULL AND session_id IS NULL AND (trace IS NOT NULL OR type = ?) AND data != ?
ORDER BY seq
"""
# As the index `ix_events_trace` has them. What is logged in no span but a turn names its session.
_TRACE = """
SELECT event_id, user_id IS NOT NULL OR session_id IS NOT NULL, data = ?, trace FROM events
WHERE substr(trace, -5) <> 'true}' AND substr(trace, -34, 8) = ? AND substr(trace, -34, 32) = ?
"""
_SPANS = (SPAN_RECORDED, "function.observed", TOOL_CALLED)
"""Types of events that are spans themselves."""


class _Unnamed(NamedTuple):
    """An event that names neither a user nor a conversation."""

    event_id: str
    span_id: str | None
    is_span: bool
    targets: tuple[str, ...]


def find(connection: Connection, user_id: str) -> list[str]:
    """Return the ids of the stored events about a user that are not erased yet.

    These are the events that name the user, and those that name no user but a conversation in which
    another event names the user. Of their traces, what names neither user nor conversation as well:
    all of it if the trace is this user's alone, otherwise the spans around the user's events.
    Scores belong to the event or trace that they judge. Reads the whole outbox, without making
    anybody wait.

    Returns:
        What names neither comes first, so that a call that is cut off leaves the way to the rest.
    """
    rows = connection.exec_driver_sql(_NAMED, (COMPLIANCE_ERASED, user_id, user_id, ERASED))
    named: dict[str, str | None] = {event_id: _ids(trace).trace_id for event_id, trace in rows}
    traces = {trace_id for trace_id in named.values() if trace_id is not None}
    by_trace: dict[str, list[_Unnamed]] = {}
    found: list[str] = []
    for trace_id, event in _unnamed(connection, traces):
        if any(target in named for target in event.targets):
            found.append(event.event_id)
            continue
        for each in traces & {trace_id, *event.targets}:
            by_trace.setdefault(each, []).append(event)
    for each, events in by_trace.items():
        found += _of_trace(connection, each, events, named)
    return [*dict.fromkeys(found), *named]


def _unnamed(connection: Connection, traces: set[str]) -> Iterator[tuple[str | None, _Unnamed]]:
    """Yield what names neither user nor conversation: all scores, and events of these traces.

    Each comes with the id of its trace.
    """
    rows = connection.exec_driver_sql(_UNNAMED, (SCORE_RECORDED, SCORE_RECORDED, ERASED))
    for event_id, kind, trace, data in rows:
        if kind != SCORE_RECORDED and trace[-34:-2] not in traces:
            continue  # as most of an outbox
        ids, judged = _ids(trace), _decoded(data)
        targets = (judged.get("target_event_id"), judged.get("target_trace_id"))
        yield (
            ids.trace_id,
            _Unnamed(
                event_id,
                ids.span_id,
                kind in _SPANS,
                tuple(target for target in targets if isinstance(target, str)),
            ),
        )


def _of_trace(
    connection: Connection, trace_id: str, events: list[_Unnamed], named: dict[str, Any]
) -> list[str]:
    """Return the ids of those of a trace's unnamed events that are about the user."""
    parents: dict[str | None, str | None] = {}
    ours: set[str | None] = set()
    shared = False
    rows = connection.exec_driver_sql(_TRACE, (ERASED, trace_id[:8], trace_id))
    for event_id, names_somebody, erased, trace in rows:
        ids = _ids(trace)
        if ids.parent_span_id is not None:
            parents[ids.span_id] = ids.parent_span_id
        if event_id in named:
            ours.add(ids.span_id)
        elif names_somebody and not erased:
            shared = True
    if not shared:
        return [event.event_id for event in events]
    around: set[str | None] = set()
    for span_id in ours:
        while span_id is not None and span_id not in around:
            around.add(span_id)
            span_id = parents.get(span_id)
    return [event.event_id for event in events if event.is_span and event.span_id in around]


class _Ids(NamedTuple):
    """The ids that an event's `trace` has."""

    trace_id: str | None
    span_id: str | None
    parent_span_id: str | None


def _ids(trace: object) -> _Ids:
    found = _decoded(trace)
    values = (found.get(name) for name in _Ids._fields)
    return _Ids(*(value if isinstance(value, str) else None for value in values))


def _decoded(text: object) -> dict[str, Any]:
    """Return a JSON object; an empty one for anything else, since rows can be damaged."""
    try:
        value = canonical.decode(text) if isinstance(text, str) else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

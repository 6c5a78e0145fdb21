"""A trace as a tree, with a bar for the time that each span took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from tracker.pages import charts
from tracker.pages.shown import clipped
from tracker.pages.view import Page
from tracker.queries.traces import Trace, TraceEvent, TraceSpan, check_trace_id, get_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markupsafe import Markup

    from tracker.pages.view import View

_MOST_EVENTS = 2_000
_MOST_CHARACTERS = 2_000_000
_DEEPEST = 12
"""Deeper spans are indented no further."""


@dataclass(frozen=True)
class Line:
    """A line of the tree.

    Attributes:
        level: How deep it is.
        name: What it says.
        span: The span; None for an event inside one.
        event: The event; None for a span.
        took: Milliseconds; None if that is not known.
        bar: The bar.
        details: Names and values to unfold.
    """

    level: int
    name: str
    span: TraceSpan | None
    event: TraceEvent | None
    took: float | None
    bar: Markup
    details: list[tuple[str, Any]]


def trace(view: View) -> Page:
    """Return the page of a trace.

    Raises:
        HTTPException: if it is not stored.
    """
    trace_id = check_trace_id("id", view.text("id"))
    found = get_trace(view.connection, trace_id, _MOST_EVENTS, _MOST_CHARACTERS, view.source.events)
    if found is None:
        raise HTTPException(404, f"No event of the trace {trace_id} is stored here.")
    lines = [line for span in found.spans for line in _lines(span, found, 0)]
    return Page("trace.html", "Trace", {
        "trace": found,
        "lines": lines,
        "spans": sum(line.span is not None for line in lines),
        "sessions": _sessions(lines),
    })  # fmt: skip


def _lines(span: TraceSpan, whole: Trace, level: int) -> Iterator[Line]:
    """Yield a span and all that is inside it, in the order of time."""
    yield _of_span(span, whole, level)
    inside: list[tuple[float, int, TraceSpan | TraceEvent]] = [
        *((child.started_at_ms, child.seq or 0, child) for child in span.children),
        *((event.timestamp_ms, event.seq, event) for event in span.events),
    ]
    for _, _, each in sorted(inside, key=lambda item: item[:2]):
        deeper = min(level + 1, _DEEPEST)
        if isinstance(each, TraceSpan):
            yield from _lines(each, whole, deeper)
        else:
            yield Line(deeper, _said(each), None, each, None, charts.point(
                _share(each.timestamp_ms, whole)), [])  # fmt: skip


def _of_span(span: TraceSpan, whole: Trace, level: int) -> Line:
    kind = "failed" if span.error is not None else span.kind
    width = (span.duration_ms or 0) / (whole.duration_ms or 1)
    details = [
        ("input", span.input),
        ("output", span.output),
        ("error", ": ".join(each for each in (span.error_type, span.error) if each) or None),
        ("traceback", span.traceback),
        *sorted((span.attributes or {}).items()),
    ]
    return Line(
        level,
        span.name or ("not recorded here" if span.kind == "unknown" else span.kind),
        span,
        None,
        span.duration_ms,
        charts.span(_share(span.started_at_ms, whole), width, kind),
        [(name, value) for name, value in details if value is not None],
    )


def _share(milliseconds: float, whole: Trace) -> float:
    return (milliseconds - whole.started_at_ms) / (whole.duration_ms or 1)


def _said(event: TraceEvent) -> str:
    data = event.data
    if data is None:
        return f"{event.type} (erased)"
    told = {"message.logged": ("role", "content"), "llm.used": ("model", "total_tokens")}
    words = [data.get(name) for name in told.get(event.type, ())]
    return clipped(" ".join([event.type, *(str(word) for word in words if word is not None)]))


def _sessions(lines: list[Line]) -> list[str]:
    named = [(line.span or line.event) for line in lines]
    found = dict.fromkeys(each.session_id for each in named if each is not None)
    return [each for each in found if each is not None]

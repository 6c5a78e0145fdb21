"""Model calls that OpenTelemetry recorded: ``otel.span`` events with the tokens that were used.

An instrumentor of a framework and one of the client below it both make a span for the same call,
and the application may log ``llm.used`` besides. So among the spans inside one another, only the
innermost ones with tokens count, and none that ``llm.used`` was logged inside of. Whichever events
of a trace arrive first, the sum is the same.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sqlalchemy import or_, select

from tracker import canonical
from tracker.events import LLM_USED, OTEL_SPAN
from tracker.otel import names
from tracker.queries.figures import figure
from tracker.queries.filters import EVERYTHING
from tracker.queries.slices import Slices
from tracker.queries.source import (
    EVENTS,
    MAX_TEXT,
    attributes,
    in_spans,
    number_field,
    text_field,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause, Select

    from tracker.queries.filters import Filters

T = TypeVar("T")

_FETCH_ROWS = 1_000
_COUNTS = (
    *("prompt_tokens", "completion_tokens", "total_tokens"),
    *("cached_tokens", "cache_write_tokens"),
)
_ATTRIBUTES = (
    *(*names.WORK, *names.MODEL),
    *(name for each in names.USAGE.values() for name in each),
)


class ModelCall(NamedTuple):
    """A model call. Values that the span does not have are None.

    Attributes:
        timestamp_ms: Time when its span ended, Unix milliseconds.
        agent_id: The agent.
        session_id: The conversation.
        model: The model.
        prompt_tokens: Tokens sent, including those from the provider's cache.
        completion_tokens: Tokens received.
        total_tokens: The sum of both, or the total if the span has only that.
        cached_tokens: Prompt tokens read from the provider's cache.
        cache_write_tokens: Prompt tokens written to it.
        cost_usd: Cost in US dollars.
    """

    timestamp_ms: int
    agent_id: str | None
    session_id: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int
    cached_tokens: int | None
    cache_write_tokens: int | None
    cost_usd: float | None


def model_calls(
    connection: Connection, events: FromClause, conditions: Iterable[ColumnElement[bool]] = ()
) -> Iterator[ModelCall]:
    """Yield the model calls that count among the events that match, trace by trace."""
    if _has_spans(connection, events):
        query = _query(events).where(*conditions)
        yield from _trace_by_trace(
            connection.execute(query, execution_options={"yield_per": _FETCH_ROWS})
        )


def calls_in_slices(
    connection: Connection, events: FromClause, wanted: Filters = EVERYTHING
) -> Iterator[ModelCall]:
    """Yield the model calls that count among the events that match, which may be many."""
    if not _has_spans(connection, events):
        return
    slices = Slices(connection, events, wanted)
    rows = slices.rows(_query(slices.events))
    if not slices.is_sliced:
        yield from _trace_by_trace(rows)
        return
    traces = defaultdict[Any, _Trace](_Trace)
    for row in rows:
        traces[row[0]].add(row)
    for trace in traces.values():
        yield from trace.calls()


def _has_spans(connection: Connection, events: FromClause) -> bool:
    """Return False if there can be no model call, as in most outboxes; takes no time."""
    spans = in_spans(events)
    if events is not EVENTS:  # it has an index of types, and none of spans
        spans.append(events.c.type == OTEL_SPAN)
    return connection.execute(select(events.c.position).where(*spans).limit(1)).first() is not None


def _query(events: FromClause) -> Select[Any]:
    event, trace_id = events.c, text_field(events, "trace_id", "trace")
    logged = (event.type == LLM_USED) & number_field(events, "total_tokens").is_not(None)
    return (
        select(
            *(trace_id, text_field(events, "span_id", "trace")),
            *(text_field(events, "parent_span_id", "trace"), event.type, event.timestamp_ms),
            *(event.agent_id, event.session_id, attributes(events, _ATTRIBUTES)),
        )
        .where(*in_spans(events), or_(event.type == OTEL_SPAN, logged))
        .order_by(trace_id, event.position)
    )


def _trace_by_trace(rows: Iterable[Sequence[Any]]) -> Iterator[ModelCall]:
    for _, stored in groupby(rows, itemgetter(0)):
        trace = _Trace()
        for row in stored:
            trace.add(row)
        yield from trace.calls()


@dataclass
class _Trace:
    """What is known of a trace."""

    spans: list[tuple[Any, Any, ModelCall | None]] = field(default_factory=list)
    logged: list[str | None] = field(default_factory=list)

    def add(self, row: Sequence[Any]) -> None:
        """Add a row of `_query`."""
        _, span_id, parent, type_, *whose, stored = row
        if type_ == LLM_USED:
            self.logged.append(span_id)
        else:
            self.spans.append((span_id, parent, _call(whose, stored)))

    def calls(self) -> list[ModelCall]:
        """Return the calls that count."""
        return innermost(self.spans, self.logged)


def innermost(
    spans: Iterable[tuple[str | None, str | None, T | None]], inside: Iterable[str | None] = ()
) -> list[T]:
    """Return what counts of the spans of a trace: what has nothing inside it that counts.

    Args:
        spans: The id of each, that of its parent, and what it counts; None if nothing.
        inside: Spans that something else was logged in which counts.
    """
    parents: dict[str | None, str | None] = {}
    found: dict[str | None, T] = {}  # by span: one that was stored twice counts once
    for span_id, parent, item in spans:
        parents.setdefault(span_id, parent)
        if item is not None:
            found.setdefault(span_id, item)
    around: set[str] = set()
    for each in (*inside, *(parents[span_id] for span_id in found)):
        while each is not None and each not in around:
            around.add(each)
            each = parents.get(each)
    return [item for span_id, item in found.items() if span_id not in around]


def _call(whose: Sequence[Any], stored: object) -> ModelCall | None:
    """Return the call that a span was; None if it was none, or has no tokens."""
    found = decoded(stored, _ATTRIBUTES)
    timestamp_ms, agent_id, session_id = whose
    prompt, completion, total, cached, written = counts_of(found)
    if first_text(found, names.WORK) not in names.MODEL_WORK or total is None:
        return None
    if not isinstance(timestamp_ms, int):  # a damaged row has any type
        return None
    whom = (timestamp_ms, agent_id, session_id, first_text(found, names.MODEL))
    cost = _first_figure(found, "cost_usd")
    return ModelCall(*whom, prompt, completion, total, cached, written, cost)


def decoded(stored: object, keys: Sequence[str]) -> dict[str, Any]:
    """Return what `source.attributes` found for these names; nothing if the row is damaged."""
    try:
        values = canonical.decode(stored)  # type: ignore[arg-type]  # it is None then
    except ValueError:
        return {}
    found = zip(keys, values, strict=True)
    return {name: value for name, value in found if value is not None}


def counts_of(attributes: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Return the tokens of a span: sent, received, both, read from the cache, written to it."""
    found = (_first_figure(attributes, field) for field in _COUNTS)
    prompt, completion, total, *cache = (None if each is None else int(each) for each in found)
    if not (prompt is None and completion is None):
        total = (prompt or 0) + (completion or 0)
    return prompt, completion, total, *cache


def first_text(attributes: Mapping[str, Any], keys: Iterable[str]) -> str | None:
    """Return the first of some attributes that is a text, like `text_field`; None if none is."""
    for key in keys:
        value = attributes.get(key)
        if isinstance(value, str) and value:
            return value[:MAX_TEXT].replace("\0", "\ufffd")
    return None


def _first_figure(attributes: Mapping[str, Any], field: str) -> float | int | None:
    figures = (figure(field, attributes.get(name)) for name in names.USAGE[field])
    return next((each for each in figures if each is not None), None)

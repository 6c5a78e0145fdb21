"""Model calls that OpenTelemetry recorded: ``otel.span`` events with the tokens that were used.

An instrumentor of a framework and one of the client below it both make a span for the same call,
and the application may log ``llm.used`` besides. So among the spans inside one another, only the
innermost ones with tokens count, and none that ``llm.used`` was logged inside of. Whichever events
of a trace arrive first, the sum is the same.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import or_, select

from tracker import canonical
from tracker.events import LLM_USED, OTEL_SPAN
from tracker.otel import names
from tracker.queries.figures import figure
from tracker.queries.source import (
    MAX_TEXT,
    attributes,
    in_spans,
    number_field,
    text_field,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, FromClause

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
    event = events.c
    spans = [*in_spans(events), event.type == OTEL_SPAN]
    # Most outboxes have none.
    if connection.execute(select(event.position).where(*spans).limit(1)).first() is None:
        return
    trace_id = text_field(events, "trace_id", "trace")
    logged = (event.type == LLM_USED) & number_field(events, "total_tokens").is_not(None)
    query = (
        select(
            *(trace_id, text_field(events, "span_id", "trace")),
            *(text_field(events, "parent_span_id", "trace"), event.type, event.timestamp_ms),
            *(event.agent_id, event.session_id, attributes(events, _ATTRIBUTES)),
        )
        .where(*in_spans(events), or_(event.type == OTEL_SPAN, logged), *conditions)
        .order_by(trace_id, event.position)
    )
    rows = connection.execute(query, execution_options={"yield_per": _FETCH_ROWS})
    for _, trace in groupby(rows, itemgetter(0)):
        yield from _innermost(trace)


def _innermost(trace: Iterable[Sequence[Any]]) -> Iterator[ModelCall]:
    parents: dict[str, str | None] = {}
    calls: dict[str, ModelCall] = {}  # by span: one that was stored twice counts once
    inner: list[str | None] = []  # the spans that something which counts is directly inside of
    for _, span_id, parent, type_, *whose, stored in trace:
        if type_ == LLM_USED:
            inner.append(span_id)
            continue
        parents.setdefault(span_id, parent)
        call = _call(whose, stored)
        if call is not None and span_id not in calls:
            calls[span_id] = call
            inner.append(parent)
    around: set[str] = set()
    for span_id in inner:
        each = span_id
        while each is not None and each not in around:
            around.add(each)
            each = parents.get(each)
    yield from (call for span_id, call in calls.items() if span_id not in around)


def _call(whose: Sequence[Any], stored: object) -> ModelCall | None:
    """Return the call that a span was; None if it was none, or has no tokens."""
    found = _decoded(stored)
    work = first_text(found, names.WORK)
    if work not in names.MODEL_WORK:
        return None
    used = {field: _first_figure(found, field) for field in names.USAGE}
    timestamp_ms, agent_id, session_id = whose
    prompt, completion, total, cached, written = (
        None if count is None else int(count) for count in map(used.get, _COUNTS)
    )
    if not (prompt is None and completion is None):
        total = (prompt or 0) + (completion or 0)
    if total is None or not isinstance(timestamp_ms, int):  # a damaged row has any type
        return None
    model = first_text(found, names.MODEL)
    whom = (timestamp_ms, agent_id, session_id, model)
    return ModelCall(*whom, prompt, completion, total, cached, written, used["cost_usd"])


def _decoded(stored: object) -> dict[str, Any]:
    try:
        values = canonical.decode(stored)  # type: ignore[arg-type]  # a damaged row has none
    except ValueError:
        return {}
    return dict(zip(_ATTRIBUTES, values, strict=True))


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

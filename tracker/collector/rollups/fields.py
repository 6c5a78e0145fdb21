"""The fields of events that are rolled up, out of one look at each event's data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Numeric, Text, and_, case, cast, collate, column, func, or_, select, true
from sqlalchemy import literal_column as sql
from sqlalchemy.dialects.postgresql import JSON

from tracker.collector.rollups.tables import TOKENS
from tracker.events import (
    AGENT_ACTIVITY,
    AGENT_HEARTBEAT,
    AGENT_REGISTERED,
    AGENT_STATUS_CHANGED,
    CONVERSATION_ENDED,
    CONVERSATION_FAILED,
    FEEDBACK_RECORDED,
    LLM_USED,
    MESSAGE_LOGGED,
    TOOL_CALLED,
)
from tracker.queries.conversations import FAILURE_OUTCOMES, LIFECYCLE
from tracker.queries.figures import BOUNDS, DAY_MS
from tracker.queries.scores import FEEDBACK
from tracker.queries.scores import TYPES as SCORES
from tracker.queries.source import MAX_TEXT

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause

OF_AGENTS = (AGENT_REGISTERED, AGENT_STATUS_CHANGED, AGENT_ACTIVITY, AGENT_HEARTBEAT)
SPOKEN = (*LIFECYCLE, MESSAGE_LOGGED, TOOL_CALLED)
"""Types that make a session a conversation."""
TYPES = (*OF_AGENTS, *SPOKEN, *SCORES, LLM_USED)
"""The types of events that are rolled up by day."""

_READ = (MESSAGE_LOGGED, CONVERSATION_ENDED, LLM_USED, *SCORES)
"""Those of whose data something is needed."""
_FIGURES = ("tokens_used", "response_time_ms", "quality_score", "cost_usd", *TOKENS)
_FIELDS = (*_FIGURES, "outcome", "model", "name", "value", "score", "erased")

_LARGEST = "1.7976931348623157e308"
"""A number beyond it is infinite to Python."""


def fields(events: FromClause) -> FromClause:
    """Return those events of a table that are rolled up by day, with what is counted of them.

    Figures are within their limits, like those of `queries.figures.figure`, and texts like those of
    `queries.source.text_field`; NULL if an event has none.
    """
    event = events.c
    data = case((event.type.in_(_READ), _without_nul(event.data)))
    given = (
        func.json_to_record(cast(data, JSON))
        .table_valued(*(column(name, JSON) for name in _FIELDS))
        .render_derived(name="given", with_types=True)
    )
    field, is_feedback = given.c, event.type == FEEDBACK_RECORDED
    day = case((event.timestamp_ms >= 0, event.timestamp_ms // DAY_MS), else_=sql("-1"))
    number = case((is_feedback, _number(field.score)), else_=_number(field.value))
    truth = case((func.json_typeof(field.value) == "boolean", cast(field.value, Text)))
    kept = cast(field.erased, Text).is_distinct_from("true")
    query = (
        select(
            *(event.client_id, event.id, event.type, event.agent_id, event.session_id),
            day.label("day"),
            *(_within(name, _number(field[name])).label(name) for name in _FIGURES),
            *(_text(field[name]).label(name) for name in ("outcome", "model")),
            case((kept, case((is_feedback, sql(f"'{FEEDBACK}'", Text)), else_=_text(field.name))))
            .label("name"),
            case((func.abs(number) <= sql(_LARGEST), number)).label("number"),
            case((~is_feedback, _text(field.value))).label("said"),
            case((~is_feedback, truth)).label("truth"),
            fails(event.type, _text(field.outcome)).label("fails"),
        )
        .select_from(events.join(given, true(), isouter=True))
        .where(event.type.in_(TYPES))
        .offset(sql("0"))  # PostgreSQL does not look through it, so each field is read once
    )  # fmt: skip
    return query.cte()


def fails(type: ColumnElement[str], outcome: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition for events by which a conversation failed."""
    # What has upper and lower case beside ASCII's is in no such word.
    said = func.lower(collate(outcome, "C")).in_(sorted(FAILURE_OUTCOMES))
    ended = and_(type == CONVERSATION_ENDED, func.coalesce(said, sql("false")))
    return or_(type == CONVERSATION_FAILED, ended)


def _without_nul(data: ColumnElement[str]) -> ColumnElement[str]:
    """Return JSON text with U+FFFD in place of U+0000, as `queries.source` reads it."""
    plain = func.replace(func.replace(data, r"\\", r"\u005c"), r"\u0000", r"\ufffd")
    return case((func.strpos(data, r"\u0000") > 0, plain), else_=data)


def _number(field: ColumnElement[Any]) -> ColumnElement[Any]:
    number = cast(cast(field, Text), Numeric)
    return case((func.json_typeof(field) == "number", number))


def _text(field: ColumnElement[Any]) -> ColumnElement[Any]:
    text = func.substr(field.op("#>>")(sql("'{}'")), 1, MAX_TEXT)
    return case((func.json_typeof(field) == "string", text))


def _within(name: str, value: ColumnElement[Any]) -> ColumnElement[Any]:
    least, most = BOUNDS[name]
    return case((value.between(sql(f"{least}"), sql(f"{most}")), value))

"""What a part of the events adds to each table of roll-ups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Double,
    Integer,
    Numeric,
    Text,
    and_,
    cast,
    func,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy import literal_column as sql

from tracker.collector.rollups import histogram
from tracker.collector.rollups.fields import SPOKEN
from tracker.collector.rollups.tables import (
    TOKENS,
    rolled_figures,
    rolled_sessions,
    rolled_usage,
)
from tracker.events import (
    AGENT_REGISTERED,
    AGENT_STATUS_CHANGED,
    CONVERSATION_ENDED,
    CONVERSATION_RESUMED,
    CONVERSATION_STARTED,
    LLM_USED,
    MESSAGE_LOGGED,
)
from tracker.queries.scores import TYPES as SCORES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, FromClause, Select, Table

    Rows = Select[Any]

TOKENS_USED, RESPONSE_TIME, OUTCOME, QUALITY = "tokens_used", "response_time", "outcome", "quality"
NUMBER, TRUTH, CATEGORY = "number", "truth", "category"
"""Kinds of figures; that of a count of events is their type."""


def sessions(fields: FromClause) -> Rows:
    """Return rows of `rolled_sessions`.

    The newest event of each kind tells the status, whatever the order: a conversation failed if it
    did after it was last opened, however it was ended then; otherwise it ended if it did.
    """
    row = fields.c
    spoken, opens = row.type.in_(SPOKEN), row.type.in_((CONVERSATION_STARTED, CONVERSATION_RESUMED))
    ends = and_(row.type == CONVERSATION_ENDED, not_(row.fails))
    called = and_(row.type == LLM_USED, row.total_tokens.is_not(None))
    sums = (
        func.count().filter(spoken).label("spoken"),
        *(_newest(row.id, opens, "opened_id"), _newest(row.id, row.fails, "failed_id")),
        _newest(row.id, ends, "ended_id"),
        *_calls(fields, called),
    )
    mine = or_(spoken, row.type == LLM_USED)
    return _by_day(fields, [row.session_id], sums).where(mine)


def usage(fields: FromClause) -> Rows:
    """Return rows of `rolled_usage`."""
    row = fields.c
    keys = [row.model, row.total_tokens.is_not(None).label("counted")]
    return _by_day(fields, keys, _calls(fields, true())).where(row.type == LLM_USED)


def figures(fields: FromClause) -> Rows:
    """Return rows of `rolled_figures`: those of each agent, and those of all together."""
    found = union_all(*_readings(fields)).subquery("readings")
    row = found.c
    of_all = (func.grouping(row.agent_id) == 1).label("of_all")
    keys = (row.kind, row.name, row.value, row.bucket)
    by = (row.client_id, row.day, *keys)
    return select(
        *(row.client_id, row.day, _key(of_all, row.agent_id, *keys), row.agent_id, of_all, *keys),
        func.count().label("amount"),
        func.sum(row.number).label("total"),
        func.min(row.number).label("least"),
        func.max(row.number).label("most"),
    ).group_by(func.grouping_sets(tuple_(row.agent_id, *by), tuple_(*by)))


def agents(events: FromClause) -> Rows:
    """Return rows of `rolled_agents`."""
    event = events.c
    return (
        select(
            *(event.client_id, event.agent_id),
            func.max(event.timestamp_ms).label("last_seen_ms"),
            func.max(event.id).label("last_id"),
            _newest(event.id, event.type == AGENT_REGISTERED, "registered_id"),
            _newest(event.id, event.type == AGENT_STATUS_CHANGED, "changed_id"),
        )
        .where(event.agent_id.is_not(None))
        .group_by(event.client_id, event.agent_id)
    )


BY_DAY: dict[Table, Callable[[FromClause], Rows]] = {
    rolled_sessions: sessions,
    rolled_usage: usage,
    rolled_figures: figures,
}
"""What fills the tables of days, from `fields.fields`."""


def _by_day(fields: FromClause, keys: Sequence[Any], sums: Iterable[ColumnElement[Any]]) -> Rows:
    """Return sums by client, day, agent and further columns."""
    row = fields.c
    columns = (row.client_id, row.day, _key(row.agent_id, *keys), row.agent_id)
    by = (row.client_id, row.day, row.agent_id, *keys)
    return select(*columns, *keys, *sums).group_by(*by)


def _key(*values: Any) -> ColumnElement[bytes]:
    text = cast(func.json_build_array(*values), Text)
    return func.sha256(func.convert_to(text, sql("'UTF8'"))).label("key")


def _newest(id: ColumnElement[int], condition: ColumnElement[bool], name: str) -> Any:
    return func.coalesce(func.max(id).filter(condition), sql("0")).label(name)


def _calls(fields: FromClause, condition: ColumnElement[bool]) -> list[Any]:
    row = fields.c
    return [
        func.count().filter(condition).label("calls"),
        *(func.sum(func.trunc(row[name])).filter(condition).label(name) for name in TOKENS),
        func.sum(row.cost_usd).filter(condition).label("cost_usd"),
        func.count(row.cost_usd).filter(condition).label("priced"),
    ]


def _readings(fields: FromClause) -> Iterator[Rows]:
    """Yield all figures, a row each, for each kind."""
    row = fields.c
    yield _reading(fields, row.type).where(row.type != LLM_USED)
    said = row.type == MESSAGE_LOGGED
    used, took = func.trunc(row.tokens_used), row.response_time_ms
    yield _reading(fields, TOKENS_USED, number=used).where(said, used.is_not(None))
    bucket = histogram.bucket(took)
    times = _reading(fields, RESPONSE_TIME, bucket=bucket, number=took)
    yield times.where(said, took.is_not(None))
    ended, outcome, score = row.type == CONVERSATION_ENDED, row.outcome, row.quality_score
    yield _reading(fields, OUTCOME, name=outcome).where(ended, outcome.is_not(None))
    nearest = cast(func.floor(cast(score, Double) + 0.5), Integer)
    quality = _reading(fields, QUALITY, bucket=nearest, number=score)
    yield quality.where(ended, score.is_not(None))
    judged = and_(row.type.in_(SCORES), row.name.is_not(None))
    for kind, value in ((NUMBER, row.number), (TRUTH, row.truth), (CATEGORY, row.said)):
        given = {"number": value} if kind == NUMBER else {"value": value}
        yield _reading(fields, kind, name=row.name, **given).where(judged, value.is_not(None))


def _reading(
    fields: FromClause,
    kind: ColumnElement[str] | str,
    name: ColumnElement[Any] | None = None,
    value: ColumnElement[Any] | None = None,
    bucket: ColumnElement[Any] | None = None,
    number: ColumnElement[Any] | None = None,
) -> Rows:
    row = fields.c
    if isinstance(kind, str):
        kind = sql(f"CAST('{kind}' AS text)", Text())
    return select(
        *(row.client_id, row.day, row.agent_id, kind.label("kind")),
        (cast(null(), Text) if name is None else name).label("name"),
        (cast(null(), Text) if value is None else value).label("value"),
        (cast(null(), Integer) if bucket is None else bucket).label("bucket"),
        (cast(null(), Numeric) if number is None else number).label("number"),
    )

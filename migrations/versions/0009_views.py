"""Views of tool calls, spans and scores, traces in the others, what conversations cost."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def _utc(column: str) -> str:
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000, 'unixepoch') "
        f"|| printf('.%03dZ', {column} % 1000)"
    )


def _if_json(value: str, column: str = "data") -> str:
    return f"CASE WHEN json_valid({column}) THEN {value} END"


def _field(name: str, column: str = "data") -> str:
    return _if_json(f"json_extract({column}, '$.{name}')", column)


def _fields(*names: str) -> str:
    return ", ".join(f"{_field(name)} AS {name}" for name in names)


def _number(name: str, least: int, most: int) -> str:
    return _if_json(
        f"CASE WHEN json_type(data, '$.{name}') IN ('integer', 'real') "
        f"AND json_extract(data, '$.{name}') BETWEEN {least} AND {most} "
        f"THEN json_extract(data, '$.{name}') END"
    )


def _kind(name: str) -> str:
    return _if_json(
        f"CASE json_type(data, '$.{name}') WHEN 'true' THEN 'boolean' WHEN 'false' THEN 'boolean' "
        "WHEN 'integer' THEN 'number' WHEN 'real' THEN 'number' WHEN 'text' THEN 'text' END"
    )


def _by_feedback(feedback: str, score: str) -> str:
    return f"CASE WHEN type = 'feedback.recorded' THEN {feedback} ELSE {score} END"


def _at(condition: str) -> str:
    return f"max(CASE WHEN {condition} THEN seq ELSE 0 END)"


def _newest(value: str) -> str:
    return f"substr(max(CASE WHEN {_ENDED} THEN printf('%020d', seq) || {value} END), 21)"


_WHOSE = (
    f"SELECT seq, event_id, {_utc('timestamp_ms')} AS timestamp, timestamp_ms, agent_id, "
    "session_id, user_id, "
)
_AROUND = (
    f", {_field('trace_id', 'trace')} AS trace_id, {_field('span_id', 'trace')} AS span_id, "
    f"{_field('parent_span_id', 'trace')} AS parent_span_id, "
    f"{_field('environment', 'context')} AS environment, {_field('release', 'context')} AS release "
    "FROM events WHERE type "
)
_BEGUN = "type IN ('conversation.started', 'conversation.resumed')"
_ENDED = "type = 'conversation.ended'"
_FAILED = (
    f"type = 'conversation.failed' OR ({_ENDED} AND lower({_field('outcome')}) "
    "IN ('failure', 'failed', 'error'))"
)
_OUTCOME = _if_json(
    "CASE WHEN json_type(data, '$.outcome') = 'text' "
    "THEN nullif(json_extract(data, '$.outcome'), '') END"
)
_COST = f"CASE WHEN type = 'llm.used' THEN {_number('cost_usd', 0, 1_000_000_000)} END"

_VIEWS = {
    "messages": _WHOSE
    + _fields("role", "content", "response_time_ms", "tokens_used", "model")
    + f"{_AROUND}= 'message.logged'",
    "tool_calls": _WHOSE
    + _fields("name", "arguments", "result", "error", "duration_ms", "call_id")
    + f"{_AROUND}= 'tool.called'",
    "llm_usage": _WHOSE
    + _fields("provider", "model", "prompt_tokens", "completion_tokens", "total_tokens")
    + f", {_fields('cost_usd', 'latency_ms')}{_AROUND}= 'llm.used'",
    "spans": _WHOSE
    + f"type, {_fields('name')}, "
    + f"coalesce({_field('input')}, {_field('arguments')}) AS input, "
    + f"coalesce({_field('output')}, {_field('result')}) AS output, "
    + _fields("error", "duration_ms", "attributes")
    + f"{_AROUND}IN ('span.recorded', 'function.observed')",
    "scores": _WHOSE
    + _by_feedback("'feedback'", _field("name"))
    + f" AS name, {_by_feedback(_field('score'), _field('value'))} AS value, "
    + f"{_by_feedback(_kind('score'), _kind('value'))} AS value_type, "
    + _fields("target_event_id", "target_trace_id", "comment", "source")
    + f"{_AROUND}IN ('score.recorded', 'feedback.recorded')",
    "conversations": "SELECT session_id, max(agent_id) AS agent_id, max(user_id) AS user_id, "
    f"{_utc('min(timestamp_ms)')} AS timestamp, min(timestamp_ms) AS timestamp_ms, "
    f"{_utc('max(timestamp_ms)')} AS last_timestamp, "
    f"CASE WHEN {_at(_FAILED)} > {_at(_BEGUN)} THEN 'failed' "
    f"WHEN {_at(_ENDED)} > {_at(_BEGUN)} THEN 'ended' ELSE 'open' END AS status, "
    f"{_newest(_OUTCOME)} AS outcome, "
    "sum(type = 'message.logged') AS messages, sum(type = 'tool.called') AS tool_calls, "
    f"sum(CASE WHEN type = 'message.logged' THEN {_field('tokens_used')} END) AS tokens_used, "
    f"CAST({_newest(_number('quality_score', 1, 5))} AS REAL) AS quality_score, "
    f"sum({_COST}) AS cost_usd, sum(type = 'llm.used') - count({_COST}) AS unpriced "
    "FROM events WHERE session_id IS NOT NULL GROUP BY session_id",
}


def upgrade() -> None:
    """Make the views anew; no row is read. An analyst's own view of such a name gives way."""
    for name, query in _VIEWS.items():
        op.execute(f"DROP VIEW IF EXISTS {name}")
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

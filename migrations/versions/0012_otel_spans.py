"""Spans of OpenTelemetry are among the others in the view of spans."""

# ruff: noqa: S608 - the query is made of constant text

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
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


def _of_otel(value: str, name: str) -> str:
    return f"CASE WHEN type = 'otel.span' THEN {_if_json(value)} ELSE {_field(name)} END AS {name}"


def _is_time(name: str) -> str:
    return (
        f"json_extract(data, '$.{name}') NOT GLOB '*[^0-9]*' "
        f"AND json_type(data, '$.{name}') = 'text'"
    )


def _time(name: str) -> str:
    return f"CAST(json_extract(data, '$.{name}') AS INTEGER)"


_TOOK = (
    f"CASE WHEN {_is_time('start')} AND {_is_time('end')} "
    f"THEN round(max({_time('end')} - {_time('start')}, 0) / 1000000.0, 3) END"
)
_FAILURE = (
    "CASE WHEN json_extract(data, '$.status.code') = 'error' "
    "THEN coalesce(json_extract(data, '$.status.message'), 'error') END"
)


def upgrade() -> None:
    """Make the view anew; no row is read."""
    op.execute("DROP VIEW IF EXISTS spans")
    op.execute(
        f"CREATE VIEW spans AS SELECT seq, event_id, {_utc('timestamp_ms')} AS timestamp, "
        "timestamp_ms, agent_id, session_id, user_id, type, "
        f"{_field('name')} AS name, "
        f"coalesce({_field('input')}, {_field('arguments')}) AS input, "
        f"coalesce({_field('output')}, {_field('result')}) AS output, "
        f"{_of_otel(_FAILURE, 'error')}, {_of_otel(_TOOK, 'duration_ms')}, "
        f"{_field('attributes')} AS attributes, "
        f"{_field('trace_id', 'trace')} AS trace_id, {_field('span_id', 'trace')} AS span_id, "
        f"{_field('parent_span_id', 'trace')} AS parent_span_id, "
        f"{_field('environment', 'context')} AS environment, "
        f"{_field('release', 'context')} AS release "
        "FROM events WHERE type IN ('span.recorded', 'function.observed', 'otel.span')"
    )


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

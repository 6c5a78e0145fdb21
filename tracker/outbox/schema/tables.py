"""The outbox's tables, as SQLAlchemy objects, and its views, for any SQLite tool.

This is the schema at `HEAD`. The scripts in ``migrations/`` bring every older file to it; a test
compares the two.
"""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

from tracker.validation import MAX_COST_USD

HEAD = "0012"
"""Alembic revision of the schema below."""

APPLICATION_ID = 0x54524B52  # "TRKR"
"""SQLite's ``application_id``: distinguishes an outbox from other programs' databases."""

metadata = MetaData()

SKIPPED = "skipped"
"""The code of a row that was settled without being sent. It is no dead letter."""
PENDING = "delivered_at_ms IS NULL AND dead_at_ms IS NULL"
"""True for the rows that are pending."""
EVENT = (
    "event_id, type, timestamp_ms, agent_id, session_id, user_id, data, digest, context, trace, "
    "salt, sealed"
)
"""The columns of an `Event`, in the order of its fields."""

events = Table(
    "events",
    metadata,
    # The rowid: gap-free position in commit order.
    Column("seq", Integer, primary_key=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("type", Text, nullable=False),
    Column("timestamp_ms", Integer, nullable=False),
    Column("agent_id", Text),
    Column("session_id", Text),
    Column("user_id", Text),
    # The states come before the long columns, so that scans for them read no overflow pages.
    Column("delivered_at_ms", Integer),
    Column("dead_at_ms", Integer),
    Column("dead_code", Text),
    Column("dead_message", Text),
    Column("digest", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("data", Text, nullable=False),
    # Later columns follow: rows from before them are shorter (`recovery.rows`).
    Column("context", Text),
    Column("trace", Text),
    Column("salt", LargeBinary),
    # What an erasure leaves of user and data: their commitments.
    Column("sealed", LargeBinary),
)

# Pending rows have no index: `sync_state.settled_through` finds them, at no cost to an insert.
Index(
    "ix_events_session_id",
    events.c.session_id,
    sqlite_where=events.c.session_id.is_not(None),
)
Index("ix_events_dead", events.c.seq, sqlite_where=events.c.dead_at_ms.is_not(None))
# Of the first digits of the trace id, which ends the text. What is logged in no span but the turn
# of a conversation ends otherwise: the index of sessions finds it, so messages cost nothing here.
Index(
    "ix_events_trace",
    text("substr(trace, -34, 8)"),
    sqlite_where=text("substr(trace, -5) <> 'true}'"),
    _table=events,
)
# Nearly empty, so it costs an insert nothing: only these rows name erased events.
Index(
    "ix_events_erasures",
    events.c.seq,
    sqlite_where=events.c.type == text("'compliance.erased'"),
)

FORMER = {
    ("index", "ix_events_timestamp_ms_type"): (
        "CREATE INDEX ix_events_timestamp_ms_type ON events (timestamp_ms, type)"
    ),
}
"""What outboxes of earlier revisions have and a migration drops, by kind and name."""

gaps = Table(
    "gaps",
    metadata,
    # Each row: events first_seq..last_seq were removed on purpose; `chain` is the value at the end.
    Column("first_seq", Integer, primary_key=True),
    Column("last_seq", Integer, nullable=False),
    Column("chain", Text, nullable=False),
    # Made with the chain key; NULL without one, and in rows of an older schema.
    Column("proof", Text),
)

time_ranges = Table(
    "time_ranges",
    metadata,
    # Each row: the times of the events after the previous row's `last_seq`, up to its own.
    Column("last_seq", Integer, primary_key=True),
    # NULL if none of them was left.
    Column("earliest_ms", Integer),
    Column("latest_ms", Integer),
)

# The Merkle tree over the digests of all events, as far as it is kept; see `integrity.tree`.
tree = Table(
    "tree",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("frontier", LargeBinary, nullable=False),
    # JSON: the ranges of seqs whose digests were lost before the next checkpoint.
    Column("unknown", Text),
    # The seq and time of the newest checkpoint.
    Column("head_seq", Integer),
    Column("head_ms", Integer),
    # The newest head that the receiver has signed, as the receipt gave it.
    Column("witness", Text),
    # When the outbox last began a new outbox id because two copies of it had sent.
    Column("renewed_ms", Integer),
)

tiles = Table(
    "tiles",
    metadata,
    Column("level", Integer, primary_key=True),
    Column("idx", Integer, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
)

removed_digests = Table(
    "removed_digests",
    metadata,
    # Until no event of the same tile is left.
    Column("seq", Integer, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
)

account = Table(
    "account",
    metadata,
    # Entries: delivered, dead, and discarded.<reason>. The rest of the last seq is pending.
    Column("entry", Text, primary_key=True),
    Column("events", Integer, nullable=False),
    # Beside the entry `stored`, and of all entries.
    Column("proof", Text),
)

sync_state = Table(
    "sync_state",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    # No event up to here is pending.
    Column("settled_through", Integer, nullable=False, server_default=text("0")),
    Column("last_success_ms", Integer),
    Column("last_error", Text),
    Column("last_error_ms", Integer),
    Column("next_attempt_ms", Integer),
    Column("paused_because", Text),
    Column("flush_requests", Integer, nullable=False, server_default=text("0")),
    # What may still contain erased data: 2 the file and its log, 1 only the log, 0 neither.
    Column("scrub_due", Integer, nullable=False, server_default=text("0")),
    # What the newest receipt warned of, in one word.
    Column("warning", Text),
)

identity = Table(
    "identity",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1"), primary_key=True),
    Column("outbox_id", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("created_at_ms", Integer, nullable=False),
)


def _utc(column: str) -> str:
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000, 'unixepoch')"
        f" || printf('.%03dZ', {column} % 1000)"
    )


_EVENT_COLUMNS = (
    f"seq, event_id, type, {_utc('timestamp_ms')} AS timestamp, timestamp_ms, "
    "agent_id, session_id, user_id, data"
)
_ADDED = "digest, chain, context, trace"

_WHOSE = (
    f"seq, event_id, {_utc('timestamp_ms')} AS timestamp, timestamp_ms, "
    "agent_id, session_id, user_id"
)


def _json(column: str, value: str) -> str:
    """Return `value`, which reads JSON in a column, or NULL where damage left no JSON there."""
    return f"CASE WHEN json_valid({column}) THEN {value} END"


def _field(name: str, column: str = "data") -> str:
    return _json(column, f"json_extract({column}, '$.{name}')")


def _fields(*names: str) -> str:
    return ", ".join(f"{_field(name)} AS {name}" for name in names)


_AROUND = ", ".join(
    f"{_field(name, column)} AS {name}"
    for column, names in (
        ("trace", ("trace_id", "span_id", "parent_span_id")),
        ("context", ("environment", "release")),
    )
    for name in names
)
_FEEDBACK = "type = 'feedback.recorded'"


def _kind(name: str) -> str:
    """Return what tells a boolean, which SQL gives as 1 or 0, from a number."""
    return _json(
        "data",
        f"CASE json_type(data, '$.{name}') WHEN 'true' THEN 'boolean' WHEN 'false' THEN 'boolean' "
        "WHEN 'integer' THEN 'number' WHEN 'real' THEN 'number' WHEN 'text' THEN 'text' END",
    )


_BEGUN = "type IN ('conversation.started', 'conversation.resumed')"
_ENDED = "type = 'conversation.ended'"
# As in `queries.conversations`: a conversation that failed stays failed until it continues.
_FAILED = (
    f"type = 'conversation.failed' OR ({_ENDED} AND "
    f"lower({_field('outcome')}) IN ('failure', 'failed', 'error'))"
)


def _last(condition: str) -> str:
    return f"max(CASE WHEN {condition} THEN seq ELSE 0 END)"


def _newest(value: str, condition: str) -> str:
    """Return the last value, as text, of the rows of a group that have one."""
    return f"substr(max(CASE WHEN {condition} THEN printf('%020d', seq) || {value} END), 21)"


def _number(name: str, least: int, most: int) -> str:
    """Return a figure within its limits, like `queries.figures.figure`."""
    number = f"json_type(data, '$.{name}') IN ('integer', 'real')"
    within = f"json_extract(data, '$.{name}') BETWEEN {least} AND {most}"
    return _json("data", f"CASE WHEN {number} AND {within} THEN json_extract(data, '$.{name}') END")


_OUTCOME = _json(
    "data",
    "CASE WHEN json_type(data, '$.outcome') = 'text' "
    "THEN nullif(json_extract(data, '$.outcome'), '') END",
)
_SCORE = _number("quality_score", 1, 5)
_COST = f"CASE WHEN type = 'llm.used' THEN {_number('cost_usd', 0, MAX_COST_USD)} END"

# OpenTelemetry's spans have both times as digits, as long as nobody damages them.
_DIGITS = "json_extract(data, '$.{0}') NOT GLOB '*[^0-9]*' AND json_type(data, '$.{0}') = 'text'"
_TIME = "CAST(json_extract(data, '$.{0}') AS INTEGER)"
_TOOK = _json(
    "data",
    f"CASE WHEN {_DIGITS.format('start')} AND {_DIGITS.format('end')} "
    f"THEN round(max({_TIME.format('end')} - {_TIME.format('start')}, 0) / 1000000.0, 3) END",
)
_FAILURE = _json(
    "data",
    "CASE WHEN json_extract(data, '$.status.code') = 'error' "
    "THEN coalesce(json_extract(data, '$.status.message'), 'error') END",
)
_OTEL = "type = 'otel.span'"

VIEWS = {
    "pending": f"""
        SELECT {_EVENT_COLUMNS}, {_ADDED} FROM events
        WHERE seq > (SELECT settled_through FROM sync_state)
          AND {PENDING}""",
    "delivered": f"""
        SELECT {_EVENT_COLUMNS}, {_utc("delivered_at_ms")} AS delivered_at, delivered_at_ms,
               {_ADDED}
        FROM events WHERE delivered_at_ms IS NOT NULL AND dead_code IS NULL""",
    "dead_letters": f"""
        SELECT {_EVENT_COLUMNS}, {_utc("dead_at_ms")} AS dead_at, dead_at_ms,
               dead_code AS code, dead_message AS message, {_ADDED}
        FROM events WHERE dead_at_ms IS NOT NULL""",
    "messages": f"""
        SELECT {_WHOSE}, {_fields("role", "content", "response_time_ms", "tokens_used", "model")},
               {_AROUND}
        FROM events WHERE type = 'message.logged'""",
    "tool_calls": f"""
        SELECT {_WHOSE}, {_fields("name", "arguments", "result", "error", "duration_ms")},
               {_fields("call_id")}, {_AROUND}
        FROM events WHERE type = 'tool.called'""",
    "llm_usage": f"""
        SELECT {_WHOSE}, {_fields("provider", "model", "prompt_tokens", "completion_tokens")},
               {_fields("total_tokens", "cost_usd", "latency_ms")}, {_AROUND}
        FROM events WHERE type = 'llm.used'""",
    "spans": f"""
        SELECT {_WHOSE}, type, {_fields("name")},
               coalesce({_field("input")}, {_field("arguments")}) AS input,
               coalesce({_field("output")}, {_field("result")}) AS output,
               CASE WHEN {_OTEL} THEN {_FAILURE} ELSE {_field("error")} END AS error,
               CASE WHEN {_OTEL} THEN {_TOOK} ELSE {_field("duration_ms")} END AS duration_ms,
               {_fields("attributes")}, {_AROUND}
        FROM events WHERE type IN ('span.recorded', 'function.observed', 'otel.span')""",
    "scores": f"""
        SELECT {_WHOSE}, CASE WHEN {_FEEDBACK} THEN 'feedback' ELSE {_field("name")} END AS name,
               CASE WHEN {_FEEDBACK} THEN {_field("score")} ELSE {_field("value")} END AS value,
               CASE WHEN {_FEEDBACK} THEN {_kind("score")} ELSE {_kind("value")} END AS value_type,
               {_fields("target_event_id", "target_trace_id", "comment", "source")}, {_AROUND}
        FROM events WHERE type IN ('score.recorded', 'feedback.recorded')""",
    "conversations": f"""
        SELECT session_id, max(agent_id) AS agent_id, max(user_id) AS user_id,
               {_utc("min(timestamp_ms)")} AS timestamp, min(timestamp_ms) AS timestamp_ms,
               {_utc("max(timestamp_ms)")} AS last_timestamp,
               CASE WHEN {_last(_FAILED)} > {_last(_BEGUN)} THEN 'failed'
                    WHEN {_last(_ENDED)} > {_last(_BEGUN)} THEN 'ended'
                    ELSE 'open' END AS status,
               {_newest(_OUTCOME, _ENDED)} AS outcome,
               sum(type = 'message.logged') AS messages,
               sum(type = 'tool.called') AS tool_calls,
               sum(CASE WHEN type = 'message.logged'
                        THEN {_field("tokens_used")} END) AS tokens_used,
               CAST({_newest(_SCORE, _ENDED)} AS REAL) AS quality_score,
               sum({_COST}) AS cost_usd,
               sum(type = 'llm.used') - count({_COST}) AS unpriced
        FROM events WHERE session_id IS NOT NULL GROUP BY session_id""",
}
"""The name and query of each view."""


def view_statements() -> list[str]:
    """Return the statements that create the views."""
    return [f"CREATE VIEW {name} AS {' '.join(query.split())}" for name, query in VIEWS.items()]

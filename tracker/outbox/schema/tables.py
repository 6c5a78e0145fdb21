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

HEAD = "0008"
"""Alembic revision of the schema below."""

APPLICATION_ID = 0x54524B52  # "TRKR"
"""SQLite's ``application_id``: distinguishes an outbox from other programs' databases."""

metadata = MetaData()

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

_BEGUN = "type IN ('conversation.started', 'conversation.resumed')"
# As in `queries.conversations`: a conversation that failed stays failed until it continues.
_FAILED = (
    "type = 'conversation.failed' OR (type = 'conversation.ended' AND CASE WHEN json_valid(data) "
    "THEN lower(json_extract(data, '$.outcome')) IN ('failure', 'failed', 'error') END)"
)


def _last(condition: str) -> str:
    return f"max(CASE WHEN {condition} THEN seq ELSE 0 END)"


VIEWS = {
    "pending": f"""
        SELECT {_EVENT_COLUMNS}, {_ADDED} FROM events
        WHERE seq > (SELECT settled_through FROM sync_state)
          AND {PENDING}""",
    "delivered": f"""
        SELECT {_EVENT_COLUMNS}, {_utc("delivered_at_ms")} AS delivered_at, delivered_at_ms,
               {_ADDED}
        FROM events WHERE delivered_at_ms IS NOT NULL""",
    "dead_letters": f"""
        SELECT {_EVENT_COLUMNS}, {_utc("dead_at_ms")} AS dead_at, dead_at_ms,
               dead_code AS code, dead_message AS message, {_ADDED}
        FROM events WHERE dead_at_ms IS NOT NULL""",
    "messages": f"""
        SELECT seq, event_id, {_utc("timestamp_ms")} AS timestamp, timestamp_ms,
               agent_id, session_id, user_id,
               json_extract(data, '$.role') AS role,
               json_extract(data, '$.content') AS content,
               json_extract(data, '$.response_time_ms') AS response_time_ms,
               json_extract(data, '$.tokens_used') AS tokens_used,
               json_extract(data, '$.model') AS model
        FROM events WHERE type = 'message.logged'""",
    "llm_usage": f"""
        SELECT seq, event_id, {_utc("timestamp_ms")} AS timestamp, timestamp_ms,
               agent_id, session_id, user_id,
               json_extract(data, '$.provider') AS provider,
               json_extract(data, '$.model') AS model,
               json_extract(data, '$.prompt_tokens') AS prompt_tokens,
               json_extract(data, '$.completion_tokens') AS completion_tokens,
               json_extract(data, '$.total_tokens') AS total_tokens,
               json_extract(data, '$.cost_usd') AS cost_usd,
               json_extract(data, '$.latency_ms') AS latency_ms
        FROM events WHERE type = 'llm.used'""",
    "conversations": f"""
        SELECT session_id, max(agent_id) AS agent_id, max(user_id) AS user_id,
               {_utc("min(timestamp_ms)")} AS timestamp, min(timestamp_ms) AS timestamp_ms,
               {_utc("max(timestamp_ms)")} AS last_timestamp,
               CASE WHEN {_last(_FAILED)} > {_last(_BEGUN)} THEN 'failed'
                    WHEN {_last("type = 'conversation.ended'")} > {_last(_BEGUN)} THEN 'ended'
                    ELSE 'open' END AS status,
               sum(type = 'message.logged') AS messages,
               sum(type = 'tool.called') AS tool_calls,
               sum(CASE WHEN type = 'message.logged'
                        THEN json_extract(data, '$.tokens_used') END) AS tokens_used,
               max(CASE WHEN type = 'conversation.ended'
                        THEN json_extract(data, '$.quality_score') END) AS quality_score
        FROM events WHERE session_id IS NOT NULL GROUP BY session_id""",
}
"""The name and query of each view."""


def view_statements() -> list[str]:
    """Return the statements that create the views."""
    return [f"CREATE VIEW {name} AS {' '.join(query.split())}" for name, query in VIEWS.items()]

"""The first schema.

A new outbox is made from ``tracker.outbox.schema`` without alembic; this script makes the same,
and stays as it is when the tables move on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


_VIEWS = (
    (
        "CREATE VIEW pending AS SELECT seq, event_id, type, strftime('%Y-%m-%dT%H:%M:%S', "
        "timestamp_ms / 1000, 'unixepoch') || printf('.%03dZ', timestamp_ms % 1000) AS "
        "timestamp, timestamp_ms, agent_id, session_id, user_id, data, digest, chain FROM "
        "events WHERE seq > (SELECT settled_through FROM sync_state) AND delivered_at_ms IS "
        "NULL AND dead_at_ms IS NULL"
    ),
    (
        "CREATE VIEW delivered AS SELECT seq, event_id, type, strftime('%Y-%m-%dT%H:%M:%S', "
        "timestamp_ms / 1000, 'unixepoch') || printf('.%03dZ', timestamp_ms % 1000) AS "
        "timestamp, timestamp_ms, agent_id, session_id, user_id, data, "
        "strftime('%Y-%m-%dT%H:%M:%S', delivered_at_ms / 1000, 'unixepoch') || "
        "printf('.%03dZ', delivered_at_ms % 1000) AS delivered_at, delivered_at_ms, digest, "
        "chain FROM events WHERE delivered_at_ms IS NOT NULL"
    ),
    (
        "CREATE VIEW dead_letters AS SELECT seq, event_id, type, "
        "strftime('%Y-%m-%dT%H:%M:%S', timestamp_ms / 1000, 'unixepoch') || "
        "printf('.%03dZ', timestamp_ms % 1000) AS timestamp, timestamp_ms, agent_id, "
        "session_id, user_id, data, strftime('%Y-%m-%dT%H:%M:%S', dead_at_ms / 1000, "
        "'unixepoch') || printf('.%03dZ', dead_at_ms % 1000) AS dead_at, dead_at_ms, "
        "dead_code AS code, dead_message AS message, digest, chain FROM events WHERE "
        "dead_at_ms IS NOT NULL"
    ),
    (
        "CREATE VIEW messages AS SELECT seq, event_id, strftime('%Y-%m-%dT%H:%M:%S', "
        "timestamp_ms / 1000, 'unixepoch') || printf('.%03dZ', timestamp_ms % 1000) AS "
        "timestamp, timestamp_ms, agent_id, session_id, user_id, json_extract(data, "
        "'$.role') AS role, json_extract(data, '$.content') AS content, json_extract(data, "
        "'$.response_time_ms') AS response_time_ms, json_extract(data, '$.tokens_used') AS "
        "tokens_used, json_extract(data, '$.model') AS model FROM events WHERE type = "
        "'message.logged'"
    ),
    (
        "CREATE VIEW llm_usage AS SELECT seq, event_id, strftime('%Y-%m-%dT%H:%M:%S', "
        "timestamp_ms / 1000, 'unixepoch') || printf('.%03dZ', timestamp_ms % 1000) AS "
        "timestamp, timestamp_ms, agent_id, session_id, user_id, json_extract(data, "
        "'$.provider') AS provider, json_extract(data, '$.model') AS model, "
        "json_extract(data, '$.prompt_tokens') AS prompt_tokens, json_extract(data, "
        "'$.completion_tokens') AS completion_tokens, json_extract(data, '$.total_tokens') "
        "AS total_tokens, json_extract(data, '$.cost_usd') AS cost_usd, json_extract(data, "
        "'$.latency_ms') AS latency_ms FROM events WHERE type = 'llm.used'"
    ),
    (
        "CREATE VIEW conversations AS SELECT session_id, max(agent_id) AS agent_id, "
        "max(user_id) AS user_id, strftime('%Y-%m-%dT%H:%M:%S', min(timestamp_ms) / 1000, "
        "'unixepoch') || printf('.%03dZ', min(timestamp_ms) % 1000) AS timestamp, "
        "min(timestamp_ms) AS timestamp_ms, strftime('%Y-%m-%dT%H:%M:%S', max(timestamp_ms) "
        "/ 1000, 'unixepoch') || printf('.%03dZ', max(timestamp_ms) % 1000) AS "
        "last_timestamp, CASE WHEN sum(type = 'conversation.failed') THEN 'failed' WHEN "
        "sum(type = 'conversation.ended') THEN 'ended' ELSE 'open' END AS status, sum(type "
        "= 'message.logged') AS messages, sum(type = 'tool.called') AS tool_calls, sum(CASE "
        "WHEN type = 'message.logged' THEN json_extract(data, '$.tokens_used') END) AS "
        "tokens_used, max(CASE WHEN type = 'conversation.ended' THEN json_extract(data, "
        "'$.quality_score') END) AS quality_score FROM events WHERE session_id IS NOT NULL "
        "GROUP BY session_id"
    ),
)


def upgrade() -> None:
    """Create every table, index and view of revision 0001."""
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("event_id", sa.Text, nullable=False, unique=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("timestamp_ms", sa.Integer, nullable=False),
        sa.Column("agent_id", sa.Text),
        sa.Column("session_id", sa.Text),
        sa.Column("user_id", sa.Text),
        sa.Column("delivered_at_ms", sa.Integer),
        sa.Column("dead_at_ms", sa.Integer),
        sa.Column("dead_code", sa.Text),
        sa.Column("dead_message", sa.Text),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_index(
        "ix_events_session_id",
        "events",
        ["session_id"],
        sqlite_where=sa.text("session_id IS NOT NULL"),
    )
    op.create_index(
        "ix_events_dead", "events", ["seq"], sqlite_where=sa.text("dead_at_ms IS NOT NULL")
    )
    op.create_table(
        "gaps",
        sa.Column("first_seq", sa.Integer, primary_key=True),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sa.Column("chain", sa.Text, nullable=False),
    )
    op.create_table(
        "account",
        sa.Column("entry", sa.Text, primary_key=True),
        sa.Column("events", sa.Integer, nullable=False),
    )
    op.create_table(
        "sync_state",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
        sa.Column("settled_through", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("last_success_ms", sa.Integer),
        sa.Column("last_error", sa.Text),
        sa.Column("last_error_ms", sa.Integer),
        sa.Column("next_attempt_ms", sa.Integer),
        sa.Column("paused_because", sa.Text),
        sa.Column("flush_requests", sa.Integer, nullable=False, server_default=sa.text("0")),
    )
    op.create_table(
        "identity",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
        sa.Column("outbox_id", sa.Text, nullable=False),
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("base_url", sa.Text, nullable=False),
        sa.Column("created_at_ms", sa.Integer, nullable=False),
    )
    for statement in _VIEWS:
        op.execute(statement)


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

"""Erasures: an index of their events, what is left to scrub; conversations that were resumed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CONVERSATIONS = (
    "CREATE VIEW conversations AS SELECT session_id, max(agent_id) AS agent_id, "
    "max(user_id) AS user_id, strftime('%Y-%m-%dT%H:%M:%S', min(timestamp_ms) / 1000, "
    "'unixepoch') || printf('.%03dZ', min(timestamp_ms) % 1000) AS timestamp, "
    "min(timestamp_ms) AS timestamp_ms, strftime('%Y-%m-%dT%H:%M:%S', max(timestamp_ms) /"
    " 1000, 'unixepoch') || printf('.%03dZ', max(timestamp_ms) % 1000) AS last_timestamp,"
    " CASE WHEN max(CASE WHEN type = 'conversation.failed' OR (type = "
    "'conversation.ended' AND CASE WHEN json_valid(data) THEN lower(json_extract(data, "
    "'$.outcome')) IN ('failure', 'failed', 'error') END) THEN seq ELSE 0 END) > max(CASE"
    " WHEN type IN ('conversation.started', 'conversation.resumed') THEN seq ELSE 0 END) "
    "THEN 'failed' WHEN max(CASE WHEN type = 'conversation.ended' THEN seq ELSE 0 END) > "
    "max(CASE WHEN type IN ('conversation.started', 'conversation.resumed') THEN seq ELSE"
    " 0 END) THEN 'ended' ELSE 'open' END AS status, sum(type = 'message.logged') AS "
    "messages, sum(type = 'tool.called') AS tool_calls, sum(CASE WHEN type = "
    "'message.logged' THEN json_extract(data, '$.tokens_used') END) AS tokens_used, "
    "max(CASE WHEN type = 'conversation.ended' THEN json_extract(data, '$.quality_score')"
    " END) AS quality_score FROM events WHERE session_id IS NOT NULL GROUP BY session_id"
)


def upgrade() -> None:
    """Create the index and the column, and the view anew."""
    op.create_index(
        "ix_events_erasures",
        "events",
        ["seq"],
        sqlite_where=sa.text("type = 'compliance.erased'"),
    )
    op.add_column(
        "sync_state",
        sa.Column("scrub_due", sa.Integer, nullable=False, server_default=sa.text("0")),
    )
    op.execute("DROP VIEW conversations")
    op.execute(_CONVERSATIONS)


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

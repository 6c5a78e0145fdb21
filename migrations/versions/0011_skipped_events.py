"""Events that were settled without being sent are not among the delivered ones."""

# ruff: noqa: S608 - the query is made of constant text

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def _utc(column: str) -> str:
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000, 'unixepoch') "
        f"|| printf('.%03dZ', {column} % 1000)"
    )


def upgrade() -> None:
    """Make the view anew; no row is read."""
    op.execute("DROP VIEW IF EXISTS delivered")
    op.execute(
        "CREATE VIEW delivered AS SELECT seq, event_id, type, "
        f"{_utc('timestamp_ms')} AS timestamp, timestamp_ms, agent_id, session_id, user_id, data, "
        f"{_utc('delivered_at_ms')} AS delivered_at, delivered_at_ms, "
        "digest, chain, context, trace "
        "FROM events WHERE delivered_at_ms IS NOT NULL AND dead_code IS NULL"
    )


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

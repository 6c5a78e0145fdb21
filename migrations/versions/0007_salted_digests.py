"""Salted digests: columns for salt and commitments, context and trace, and the views with them."""

# ruff: noqa: S608 - the queries are made of constant text

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _utc(column: str) -> str:
    return (
        f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000, 'unixepoch') "
        f"|| printf('.%03dZ', {column} % 1000)"
    )


_EVENT = (
    f"SELECT seq, event_id, type, {_utc('timestamp_ms')} AS timestamp, timestamp_ms, agent_id, "
    "session_id, user_id, data, "
)
_ADDED = "digest, chain, context, trace FROM events WHERE "
_VIEWS = {
    "pending": _EVENT + _ADDED + "seq > (SELECT settled_through FROM sync_state) "
    "AND delivered_at_ms IS NULL AND dead_at_ms IS NULL",
    "delivered": _EVENT
    + f"{_utc('delivered_at_ms')} AS delivered_at, delivered_at_ms, "
    + _ADDED
    + "delivered_at_ms IS NOT NULL",
    "dead_letters": _EVENT
    + f"{_utc('dead_at_ms')} AS dead_at, dead_at_ms, dead_code AS code, dead_message AS message, "
    + _ADDED
    + "dead_at_ms IS NOT NULL",
}


def upgrade() -> None:
    """Add the columns, empty for the events so far, and make the views anew."""
    for name in ("context", "trace"):
        op.add_column("events", sa.Column(name, sa.Text))
    for name in ("salt", "sealed"):
        op.add_column("events", sa.Column(name, sa.LargeBinary))
    for name, query in _VIEWS.items():
        op.execute(f"DROP VIEW {name}")
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

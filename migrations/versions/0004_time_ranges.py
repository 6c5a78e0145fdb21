"""A row of times for some 256 events, in place of an index entry for each event."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_FILL = """
INSERT INTO time_ranges (last_seq, earliest_ms, latest_ms)
SELECT ((seq - 1) / 256 + 1) * 256, min(timestamp_ms), max(timestamp_ms) FROM events
WHERE seq <= (SELECT max(seq) FROM events) / 256 * 256 GROUP BY 1
"""


def upgrade() -> None:
    """Create the table, fill it, and drop the index."""
    op.create_table(
        "time_ranges",
        sa.Column("last_seq", sa.Integer, primary_key=True),
        sa.Column("earliest_ms", sa.Integer),
        sa.Column("latest_ms", sa.Integer),
    )
    op.execute(_FILL)
    op.drop_index("ix_events_timestamp_ms_type", "events")


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

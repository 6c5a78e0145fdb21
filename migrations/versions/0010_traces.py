"""An index of the events that belong to a trace, by the first digits of its id."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index, which is empty: no earlier version logged a trace."""
    op.execute(
        "CREATE INDEX ix_events_trace ON events (substr(trace, -34, 8)) "
        "WHERE substr(trace, -5) <> 'true}'"
    )


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

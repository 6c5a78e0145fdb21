"""Proofs of gaps, and of the newest seq in the account."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what was removed before has no proof."""
    op.add_column("gaps", sa.Column("proof", sa.Text))
    op.add_column("account", sa.Column("proof", sa.Text))


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

"""The Merkle tree over the digests: its state, its tiles, and the digests of removed events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, empty: the tree is hashed by the process that uploads."""
    op.create_table(
        "tree",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.Column("unknown", sa.Text),
        sa.Column("head_seq", sa.Integer),
        sa.Column("head_ms", sa.Integer),
        sa.Column("witness", sa.Text),
        sa.Column("renewed_ms", sa.Integer),
    )
    op.create_table(
        "tiles",
        sa.Column("level", sa.Integer, primary_key=True),
        sa.Column("idx", sa.Integer, primary_key=True),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "removed_digests",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

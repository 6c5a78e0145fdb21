"""${message}

Revises: ${down_revision | comma,n}
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Carry an outbox one revision forward."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """An outbox is never carried back: a newer file may hold what an older one cannot."""
    raise RuntimeError("downgrading an outbox is not supported")

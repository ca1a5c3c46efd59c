"""When a window of a live metric ended by its own clock, and how long it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "windows_own_time"
down_revision = "numberings_and_conflicts"
branch_labels = None
depends_on = None


def upgrade() -> None:
    ended = sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True)
    op.add_column("rollout_samples", ended)
    op.add_column("rollout_samples", sa.Column("seconds", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("rollout_samples", "seconds")
    op.drop_column("rollout_samples", "ended_at")

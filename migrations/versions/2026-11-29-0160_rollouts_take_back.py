"""A device that came back with a rollout has an outcome of its own: it read `healthy` for ever.
An assignment may tie models, which then change in one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "rollouts_take_back"
down_revision = "windows_own_time"
branch_labels = None
depends_on = None


JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.add_column("baselines", sa.Column("together", JSON))
    op.execute(
        "UPDATE rollout_devices SET outcome = 'returned' WHERE left_at IS NOT NULL "
        "AND outcome IN ('switched', 'healthy', 'silent') "
        "AND rollout_id IN (SELECT id FROM rollouts WHERE state = 'rolled_back')"
    )


def downgrade() -> None:
    op.drop_column("baselines", "together")
    op.execute("UPDATE rollout_devices SET outcome = 'healthy' WHERE outcome = 'returned'")

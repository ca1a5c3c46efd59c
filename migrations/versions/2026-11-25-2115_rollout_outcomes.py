"""What a rollout's devices had before, since when their reports count, and when they left it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "rollout_outcomes"
down_revision = "people_and_audit_chain"
branch_labels = None
depends_on = None


def upgrade() -> None:
    zero = sa.text("0")
    op.add_column("rollout_devices", sa.Column("left_at", sa.DateTime(timezone=True)))
    op.add_column("rollout_devices", sa.Column("came_from", sa.String(length=64)))
    op.add_column(
        "rollout_devices",
        sa.Column("counts_from", sa.BigInteger(), nullable=False, server_default=zero),
    )


def downgrade() -> None:
    for column in ("counts_from", "came_from", "left_at"):
        op.drop_column("rollout_devices", column)

"""When the fleet last needed a delta: what is not needed any more is cleared."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "deltas_are_cleared"
down_revision = "versions_over_time"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deltas", sa.Column("needed_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE deltas SET needed_at = created_at")
    with op.batch_alter_table("deltas") as deltas:
        deltas.alter_column("needed_at", existing_type=sa.DateTime(timezone=True), nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("deltas") as deltas:
        deltas.drop_column("needed_at")

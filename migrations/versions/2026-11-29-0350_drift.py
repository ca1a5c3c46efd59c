"""Devices say when the inputs of a version have drifted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "drift"
down_revision = "learning_rounds"
branch_labels = None
depends_on = None
expand_only = True


def upgrade() -> None:
    op.add_column("device_history", sa.Column("detail", sa.String(512), nullable=True))
    op.create_index(op.f("ix_device_history_became_at"), "device_history", ["became", "at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_device_history_became_at"), table_name="device_history")
    op.drop_column("device_history", "detail")

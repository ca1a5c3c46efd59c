"""How many windows a device's metrics are of; find devices by what they are about to take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "live_metrics"
down_revision = "deltas"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "device_metrics",
        sa.Column("windows", sa.BigInteger(), nullable=False, server_default=sa.text("1")),
    )
    op.create_index(
        op.f("ix_device_models_candidate_version_model"),
        "device_models",
        ["candidate_version", "model"],
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_device_models_candidate_version_model"), table_name="device_models")
    op.drop_column("device_metrics", "windows")

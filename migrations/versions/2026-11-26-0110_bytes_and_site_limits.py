"""Bytes sent by device and version; what sites may take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "bytes_and_site_limits"
down_revision = "live_metrics"
branch_labels = None
depends_on = None


def upgrade() -> None:
    big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "bytes_sent",
        sa.Column("device_id", big, autoincrement=False, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("rollout", sa.String(64), nullable=False),
        sa.Column("site", sa.String(128), nullable=False),
        sa.Column("sent_full", sa.BigInteger(), nullable=False),
        sa.Column("sent_delta", sa.BigInteger(), nullable=False),
        sa.Column("delta_for", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "device_id",
            "model",
            "version",
            "variant",
            "rollout",
            "site",
            name=op.f("pk_bytes_sent"),
        ),
    )
    op.create_index(op.f("ix_bytes_sent_model_version"), "bytes_sent", ["model", "version"])
    op.create_index(op.f("ix_bytes_sent_rollout"), "bytes_sent", ["rollout"])
    op.create_table(
        "site_limits",
        sa.Column("site", sa.String(128), nullable=False),
        sa.Column("max_rate_kbps", sa.BigInteger(), nullable=True),
        sa.Column("max_device_rate_kbps", sa.BigInteger(), nullable=True),
        sa.Column("max_downloads", sa.Integer(), nullable=True),
        sa.Column("set_by", sa.String(200), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("site", name=op.f("pk_site_limits")),
    )


def downgrade() -> None:
    op.drop_table("site_limits")
    op.drop_index(op.f("ix_bytes_sent_rollout"), table_name="bytes_sent")
    op.drop_index(op.f("ix_bytes_sent_model_version"), table_name="bytes_sent")
    op.drop_table("bytes_sent")

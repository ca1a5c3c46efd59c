"""Devices send captured cases, sealed for a reader."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "captures"
down_revision = "blob_store_of_processes"
branch_labels = None
depends_on = None
expand_only = True

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "captures",
        sa.Column("id", BIG, nullable=False),
        sa.Column("device_id", BIG, nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("case_id", sa.String(64), nullable=False),
        sa.Column("reader", sa.String(64), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("size", BIG, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_captures_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_captures")),
        sa.UniqueConstraint("device_id", "case_id", name=op.f("uq_captures_device_id_case_id")),
    )
    op.create_index("ix_captures_device_id_size", "captures", ["device_id", "size"])
    op.create_index(op.f("ix_captures_device"), "captures", ["device"])
    op.create_index(op.f("ix_captures_model"), "captures", ["model"])
    op.create_index(op.f("ix_captures_received_at"), "captures", ["received_at"])


def downgrade() -> None:
    op.drop_table("captures")

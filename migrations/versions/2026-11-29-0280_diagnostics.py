"""Operators may ask a device for its log and state, sealed for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "diagnostics"
down_revision = "bucket_uploads"
branch_labels = None
depends_on = None
expand_only = True

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "diagnostics",
        sa.Column("id", BIG, nullable=False),
        sa.Column("device_id", BIG, nullable=False),
        sa.Column("reader", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("detail", sa.String(512), nullable=True),
        sa.Column("asked_by", sa.String(200), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_diagnostics_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_diagnostics")),
    )
    op.create_index(op.f("ix_diagnostics_device_id"), "diagnostics", ["device_id"])
    op.create_index(op.f("ix_diagnostics_asked_at"), "diagnostics", ["asked_at"])
    op.add_column("devices", sa.Column("diagnostics_wish", sa.String(100), nullable=True))


def downgrade() -> None:
    op.drop_column("devices", "diagnostics_wish")
    op.drop_table("diagnostics")

"""Models that operators ordered off groups and devices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "removals"
down_revision = "note_who_asked_to_join"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "removals",
        sa.Column(
            "id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("group_id", sa.BigInteger(), nullable=True),
        sa.Column("device_id", sa.BigInteger(), nullable=True),
        sa.Column("set_by", sa.String(200), nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_removals_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["groups.id"],
            name=op.f("fk_removals_group_id_groups"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_removals")),
        sa.UniqueConstraint("device_id", "model", name=op.f("uq_removals_device_id_model")),
        sa.UniqueConstraint("group_id", "model", name=op.f("uq_removals_group_id_model")),
    )


def downgrade() -> None:
    op.drop_table("removals")

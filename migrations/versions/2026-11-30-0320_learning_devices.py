"""Devices are asked to take part in rounds, wave by wave; what came of it is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "learning_devices"
down_revision = "knows_of_processes"
branch_labels = None
depends_on = None
expand_only = True

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "learning_experiments",
        sa.Column("wave_devices", sa.Integer(), nullable=False, server_default="0"),
    )
    op.create_table(
        "learning_devices",
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("device_id", BIG, nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(32), nullable=True),
        sa.Column("examples", sa.Integer(), nullable=True),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["round_id"],
            ["learning_rounds.id"],
            name=op.f("fk_learning_devices_round_id_learning_rounds"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_learning_devices_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("round_id", "device_id", name=op.f("pk_learning_devices")),
    )
    op.create_index(
        op.f("ix_learning_devices_round_id_state_asked_at"),
        "learning_devices",
        ["round_id", "state", "asked_at"],
    )


def downgrade() -> None:
    op.drop_table("learning_devices")
    op.drop_column("learning_experiments", "wave_devices")

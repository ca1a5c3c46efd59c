"""Devices learn in rounds of training plans."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "learning_rounds"
down_revision = "plans"
branch_labels = None
depends_on = None
expand_only = True

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "learning_rounds",
        sa.Column("id", BIG, nullable=False),
        sa.Column("plan_id", BIG, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("plan", sa.String(64), nullable=False),
        sa.Column("plan_sha256", sa.String(64), nullable=False),
        sa.Column("group_id", BIG, nullable=True),
        sa.Column("group", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("opened_by", sa.String(200), nullable=False),
        sa.Column("ends_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("detail", sa.String(512), nullable=True),
        sa.Column("figures", JSON, nullable=True),
        sa.Column("head", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["plans.id"], name=op.f("fk_learning_rounds_plan_id_plans")
        ),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["groups.id"],
            name=op.f("fk_learning_rounds_group_id_groups"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_learning_rounds")),
    )
    for column in ("plan_id", "model", "plan_sha256", "state"):
        op.create_index(op.f(f"ix_learning_rounds_{column}"), "learning_rounds", [column])
    op.create_table(
        "learning_updates",
        sa.Column("id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("device_id", BIG, nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", BIG, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("gain", sa.Float(), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["round_id"],
            ["learning_rounds.id"],
            name=op.f("fk_learning_updates_round_id_learning_rounds"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_learning_updates_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_learning_updates")),
        sa.UniqueConstraint(
            "round_id", "device_id", name=op.f("uq_learning_updates_round_id_device_id")
        ),
    )


def downgrade() -> None:
    op.drop_table("learning_updates")
    op.drop_table("learning_rounds")

"""Pairs of blobs that want a delta."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "deltas"
down_revision = "webhooks_follow_devices"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deltas",
        sa.Column("from_sha256", sa.String(64), nullable=False),
        sa.Column("to_sha256", sa.String(64), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("full_size", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("delta_sha256", sa.String(64), nullable=True),
        sa.Column("detail", sa.String(512), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'ready', 'useless', 'failed')", name=op.f("ck_deltas_state")
        ),
        sa.PrimaryKeyConstraint("from_sha256", "to_sha256", name=op.f("pk_deltas")),
    )
    op.create_index(op.f("ix_deltas_state_created_at"), "deltas", ["state", "created_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_deltas_state_created_at"), table_name="deltas")
    op.drop_table("deltas")

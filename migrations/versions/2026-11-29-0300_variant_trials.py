"""Variants are chosen by what a few devices of each class measure."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "variant_trials"
down_revision = "traces"
branch_labels = None
depends_on = None
expand_only = True

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "variant_trials",
        sa.Column("device_id", BIG, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("class_of", sa.String(16), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=True),
        *(
            sa.Column(name, sa.Float(), nullable=True)
            for name in ("p05_ms", "cpu_ms", "load_ms", "peak_mb", "energy_mj")
        ),
        sa.Column("failed", sa.String(64), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_variant_trials_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            *("device_id", "sha256", "class_of", "variant"), name=op.f("pk_variant_trials")
        ),
    )
    op.create_index(op.f("ix_variant_trials_sha256"), "variant_trials", ["sha256"])
    op.add_column("baselines", sa.Column("choose", JSON, nullable=True))


def downgrade() -> None:
    op.drop_column("baselines", "choose")
    op.drop_table("variant_trials")

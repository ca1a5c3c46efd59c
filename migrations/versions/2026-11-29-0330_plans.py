"""Publishers sign training plans."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "plans"
down_revision = "captures"
branch_labels = None
depends_on = None
expand_only = True

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "plans",
        sa.Column("id", BIG, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("validation_sha256", sa.String(64), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_by", sa.String(200), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_plans_model_models")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
        sa.UniqueConstraint("model", "name", name=op.f("uq_plans_model_name")),
        sa.UniqueConstraint("model", "sha256", name=op.f("uq_plans_model_sha256")),
    )
    op.create_index(op.f("ix_plans_validation_sha256"), "plans", ["validation_sha256"])


def downgrade() -> None:
    op.drop_table("plans")

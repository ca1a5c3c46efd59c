"""A plan may name the head that its first round goes on from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "plan_heads"
down_revision = "learning_uploads"
branch_labels = None
depends_on = None
expand_only = True


def upgrade() -> None:
    op.add_column("plans", sa.Column("head_sha256", sa.String(64), nullable=True))
    op.create_index(op.f("ix_plans_head_sha256"), "plans", ["head_sha256"])


def downgrade() -> None:
    op.drop_index(op.f("ix_plans_head_sha256"), table_name="plans")
    op.drop_column("plans", "head_sha256")

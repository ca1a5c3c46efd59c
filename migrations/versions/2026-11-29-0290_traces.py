"""A version and a rollout remember the trace that they belong to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "traces"
down_revision = "diagnostics"
branch_labels = None
depends_on = None
expand_only = True


def upgrade() -> None:
    op.add_column("versions", sa.Column("traceparent", sa.String(55), nullable=True))
    op.add_column("rollouts", sa.Column("traceparent", sa.String(55), nullable=True))


def downgrade() -> None:
    op.drop_column("rollouts", "traceparent")
    op.drop_column("versions", "traceparent")

"""A request that is sent twice with one Idempotency-Key is done once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "idempotency_keys"
down_revision = "rollouts_take_back"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answer", sa.Text()),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_begun_at"), "idempotency_keys", ["begun_at"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")

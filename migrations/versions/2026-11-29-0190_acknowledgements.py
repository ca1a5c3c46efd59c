"""A person may acknowledge what needs attention."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "acknowledgements"
down_revision = "purges"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "acknowledgements",
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("note", sa.String(512), nullable=False),
        sa.Column("by", sa.String(200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_acknowledgements")),
    )


def downgrade() -> None:
    op.drop_table("acknowledgements")

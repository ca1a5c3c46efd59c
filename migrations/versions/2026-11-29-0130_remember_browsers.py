"""Browsers that somebody has signed in with, so that strangers' failures do not keep them out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "remember_browsers"
down_revision = "facts_apart_from_labels"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "known_browsers",
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column(
            "person_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["people.id"],
            name=op.f("fk_known_browsers_person_id_people"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_known_browsers")),
    )
    op.create_index(op.f("ix_known_browsers_person_id"), "known_browsers", ["person_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_known_browsers_person_id"), table_name="known_browsers")
    op.drop_table("known_browsers")

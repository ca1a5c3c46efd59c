"""Under which name a device counts, and whether two machines use its key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "numberings_and_conflicts"
down_revision = "removals"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def columns() -> tuple[sa.Column, ...]:
    return (
        sa.Column("numbering", sa.String(length=64), nullable=False, server_default=""),
        sa.Column("plain_seq", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("event_run", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("top_event", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("boots", JSON, nullable=False, server_default=sa.text("'[]'")),
        sa.Column("conflict_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("conflict_at", sa.DateTime(timezone=True), nullable=True),
    )


def upgrade() -> None:
    for column in columns():
        op.add_column("devices", column)
    op.execute("UPDATE devices SET top_event = acked_event")
    op.create_index(op.f("ix_devices_conflict_since"), "devices", ["conflict_since"])


def downgrade() -> None:
    op.drop_index(op.f("ix_devices_conflict_since"), table_name="devices")
    for column in reversed(columns()):
        op.drop_column("devices", column.name)

"""Which versions ran on how many devices; how a metric went; sort devices by more than the name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "versions_over_time"
down_revision = "bytes_and_site_limits"
branch_labels = None
depends_on = None

INDEXES = (
    ("device_models", ("model", "current_version")),
    ("device_models", ("state", "device_id")),
    ("devices", ("last_seen", "id")),
    ("devices", ("agent", "name")),
)
JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "version_counts",
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("grain_s", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("at", "model", "version", name=op.f("pk_version_counts")),
    )
    op.create_index(op.f("ix_version_counts_grain_s_at"), "version_counts", ["grain_s", "at"])
    op.create_index(
        op.f("ix_version_counts_model_grain_s_at"), "version_counts", ["model", "grain_s", "at"]
    )
    op.add_column(
        "device_metrics", sa.Column("points", JSON, nullable=False, server_default=sa.text("'[]'"))
    )
    for table, columns in INDEXES:
        op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns))


def downgrade() -> None:
    for table, columns in INDEXES:
        op.drop_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table_name=table)
    op.drop_column("device_metrics", "points")
    op.drop_table("version_counts")

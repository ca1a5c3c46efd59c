"""Updates of training plans may come in pieces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "learning_uploads"
down_revision = "learning_devices"
branch_labels = None
depends_on = None
expand_only = True

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "learning_uploads",
        sa.Column("device_id", BIG, autoincrement=False, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", BIG, nullable=False),
        sa.Column("received", BIG, nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_learning_uploads_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["round_id"],
            ["learning_rounds.id"],
            name=op.f("fk_learning_uploads_round_id_learning_rounds"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("device_id", name=op.f("pk_learning_uploads")),
    )
    for column in ("round_id", "touched_at"):
        op.create_index(op.f(f"ix_learning_uploads_{column}"), "learning_uploads", [column])
    op.create_table(
        "learning_upload_pieces",
        sa.Column("device_id", BIG, autoincrement=False, nullable=False),
        sa.Column("start", BIG, autoincrement=False, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["learning_uploads.device_id"],
            name=op.f("fk_learning_upload_pieces_device_id_learning_uploads"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("device_id", "start", name=op.f("pk_learning_upload_pieces")),
    )


def downgrade() -> None:
    op.drop_table("learning_upload_pieces")
    op.drop_table("learning_uploads")

"""Uploads that arrive in a bucket, in pieces, from any host."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "bucket_uploads"
down_revision = "server_processes"
branch_labels = None
depends_on = None
expand_only = True


def upgrade() -> None:
    op.create_table(
        "blob_uploads",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(32), nullable=True),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blob_uploads")),
    )
    op.create_index(op.f("ix_blob_uploads_touched_at"), "blob_uploads", ["touched_at"])
    op.create_table(
        "blob_upload_pieces",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "start", name=op.f("pk_blob_upload_pieces")),
    )


def downgrade() -> None:
    op.drop_table("blob_upload_pieces")
    op.drop_table("blob_uploads")

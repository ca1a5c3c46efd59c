"""Bytes that were purged with a version may not be published again unless somebody allows it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "purged_blobs"
down_revision = "told_intervals"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("blobs", sa.Column("purged_with", sa.String(160)))
    # versions purged before: their files that are gone, where a person (not the server) purged them
    op.execute(
        "UPDATE blobs SET purged_with = ("
        "SELECT max(v.model || ' ' || v.version) FROM variant_files f"
        " JOIN variants a ON a.id = f.variant_id JOIN versions v ON v.id = a.version_id"
        " WHERE f.sha256 = blobs.sha256 AND v.purged_at IS NOT NULL AND v.purged_by <> 'server')"
        " WHERE removed_at IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_column("blobs", "purged_with")

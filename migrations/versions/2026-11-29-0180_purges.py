"""A version's bytes may be removed for good; what was signed of it stays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "purges"
down_revision = "idempotency_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("purged_at", sa.DateTime(timezone=True)))
    op.add_column("versions", sa.Column("purged_reason", sa.String(512)))
    op.add_column("versions", sa.Column("purged_by", sa.String(200)))
    op.add_column("blobs", sa.Column("removed_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("blobs", "removed_at")
    for name in ("purged_by", "purged_reason", "purged_at"):
        op.drop_column("versions", name)

"""Server processes say which blob store they have, so that hosts that share none are found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "blob_store_of_processes"
down_revision = "variant_trials"
branch_labels = None
depends_on = None
expand_only = True


def upgrade() -> None:
    op.add_column("server_processes", sa.Column("blob_store", sa.String(512), nullable=True))


def downgrade() -> None:
    op.drop_column("server_processes", "blob_store")

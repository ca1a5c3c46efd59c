"""Note from which address a device asked to join, so that one address cannot fill the list."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "note_who_asked_to_join"
down_revision = "remember_browsers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("asked_from", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("devices", "asked_from")

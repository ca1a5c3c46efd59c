"""How often each device was told to check in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "told_intervals"
down_revision = "refused_since"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("check_in_s", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("devices", "check_in_s")

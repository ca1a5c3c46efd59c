"""Server processes say what they know of, so that one of an older release is not handed what it
would take for something else."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "knows_of_processes"
down_revision = "learning_experiments"
branch_labels = None
depends_on = None
expand_only = True


def upgrade() -> None:
    op.add_column("server_processes", sa.Column("knows", sa.String(256), nullable=True))


def downgrade() -> None:
    op.drop_column("server_processes", "knows")

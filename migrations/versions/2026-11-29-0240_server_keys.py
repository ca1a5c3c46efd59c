"""The server's own keys may be kept in the database, encrypted, for several hosts to share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "server_keys"
down_revision = "silence_is_told"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "server_keys",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_server_keys")),
    )


def downgrade() -> None:
    op.drop_table("server_keys")

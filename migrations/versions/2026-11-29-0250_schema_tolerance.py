"""The database says which older code may go on with it, while hosts are upgraded one by one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "schema_tolerance"
down_revision = "server_keys"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # its row is written after each migration from this one on (`migrate.note_oldest`)
    op.create_table(
        "schema_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("oldest", sa.String(64), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_schema_state_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_state")),
    )


def downgrade() -> None:
    op.drop_table("schema_state")

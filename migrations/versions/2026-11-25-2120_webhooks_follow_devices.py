"""Webhooks are told of what became of versions on devices; its numbers never come twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "webhooks_follow_devices"
down_revision = "rollout_outcomes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "webhooks",
        sa.Column("history_cursor", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
    )
    _number_history(autoincrement=True)


def _number_history(*, autoincrement: bool) -> None:
    """SQLite gives the highest number again after its row was deleted, unless told otherwise."""
    if op.get_bind().dialect.name == "sqlite":
        with op.batch_alter_table(
            "device_history",
            recreate="always",
            table_kwargs={"sqlite_autoincrement": autoincrement},
        ):
            pass


def downgrade() -> None:
    _number_history(autoincrement=False)
    op.drop_column("webhooks", "history_cursor")

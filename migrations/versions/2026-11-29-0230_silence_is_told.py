"""Which devices were reported silent, and when the fleet was last looked at for that."""

from __future__ import annotations

from datetime import datetime, timezone

import sqlalchemy as sa
from alembic import op

revision = "silence_is_told"
down_revision = "purged_blobs"
branch_labels = None
depends_on = None

# So long ago that whoever looks first gives the devices time to report.
NEVER = datetime(1970, 1, 1, tzinfo=timezone.utc)
IN_SERVICE = "state NOT IN ('pending', 'revoked', 'decommissioned')"
INDEXES = {
    "ix_devices_awaited": f"{IN_SERVICE} AND silent_since IS NULL",
    "ix_devices_missed": f"{IN_SERVICE} AND silent_since IS NOT NULL",
}


def upgrade() -> None:
    op.add_column("devices", sa.Column("silent_since", sa.DateTime(timezone=True), nullable=True))
    for name, where in INDEXES.items():
        op.create_index(
            name,
            "devices",
            ["check_in_s", "last_seen"],
            sqlite_where=sa.text(where),
            postgresql_where=sa.text(where),
        )
    watch = op.create_table(
        "silence_watch",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("away_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("away_until", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_silence_watch_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_silence_watch")),
    )
    op.bulk_insert(watch, [{"id": 1, "looked_at": NEVER, "away_from": NEVER, "away_until": NEVER}])


def downgrade() -> None:
    op.drop_table("silence_watch")
    for name in INDEXES:
        op.drop_index(name, "devices")
    op.drop_column("devices", "silent_since")

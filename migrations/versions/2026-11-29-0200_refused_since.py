"""Since when a device refuses its orders, with an index: few do, and they are counted often."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "refused_since"
down_revision = "acknowledgements"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("devices", sa.Column("refused_since", sa.DateTime(timezone=True), nullable=True))
    op.execute(
        "UPDATE devices SET refused_since = coalesce(last_check_in, created_at) "
        "WHERE refusal IS NOT NULL"
    )
    op.create_index(op.f("ix_devices_refused_since"), "devices", ["refused_since"])


def downgrade() -> None:
    op.drop_index(op.f("ix_devices_refused_since"), table_name="devices")
    op.drop_column("devices", "refused_since")

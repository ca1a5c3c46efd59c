"""Groups of devices that mask what they send, and their members."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "masked_rounds"
down_revision = "plan_heads"
branch_labels = None
depends_on = None
expand_only = True

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
GROUPS, MEMBERS = "learning_masked_groups", "learning_masked_members"


def upgrade() -> None:
    op.create_table(
        GROUPS,
        sa.Column("id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("ends_at", TIME, nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("detail", sa.String(512), nullable=True),
        sa.Column("gain", sa.Float(), nullable=True),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        _reference(GROUPS, "round_id", "learning_rounds"),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{GROUPS}")),
        sa.UniqueConstraint("digest", name=op.f(f"uq_{GROUPS}_digest")),
    )
    op.create_index(op.f(f"ix_{GROUPS}_round_id"), GROUPS, ["round_id"])
    op.create_index(op.f(f"ix_{GROUPS}_phase"), GROUPS, ["phase"])
    op.create_table(
        MEMBERS,
        sa.Column("id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("group_id", BIG, nullable=True),
        sa.Column("device_id", BIG, nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("sent", sa.String(16), nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("keys", sa.LargeBinary(), nullable=False),
        sa.Column("shares", sa.LargeBinary(), nullable=True),
        sa.Column("numbers", sa.LargeBinary(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        _reference(MEMBERS, "round_id", "learning_rounds"),
        _reference(MEMBERS, "group_id", GROUPS),
        _reference(MEMBERS, "device_id", "devices"),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{MEMBERS}")),
        sa.UniqueConstraint(
            "round_id",
            "device_id",
            "attempt",
            name=op.f(f"uq_{MEMBERS}_round_id_device_id_attempt"),
        ),
    )
    op.create_index(op.f(f"ix_{MEMBERS}_group_id"), MEMBERS, ["group_id"])


def _reference(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{to}")
    return sa.ForeignKeyConstraint([column], [f"{to}.id"], name=name, ondelete="CASCADE")


def downgrade() -> None:
    op.drop_table(MEMBERS)
    op.drop_table(GROUPS)

"""Policies, rollouts and what came of them, live metrics, webhooks."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "rollouts"
down_revision = "spine"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
PRIME = 2**31 - 1
BATCH = 2000


def upgrade() -> None:
    op.create_table(
        "policies",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", JSON, nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_policies_name_version")),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=1024), nullable=False),
        sa.Column("secret", sa.String(length=128), nullable=False),
        sa.Column("verbs", JSON, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
        sa.UniqueConstraint("name", name=op.f("uq_webhooks_name")),
    )
    op.create_table(
        "device_metrics",
        sa.Column("device_id", ID, nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("sketch", JSON, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_device_metrics_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "device_id", "model", "version", "metric", name=op.f("pk_device_metrics")
        ),
    )
    op.create_table(
        "rollouts",
        sa.Column("id", ID, nullable=False),
        sa.Column("group_id", ID, nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.String(length=64), nullable=False),
        sa.Column("policy_version", sa.Integer(), nullable=False),
        sa.Column("document", JSON, nullable=False),
        sa.Column("multiplier", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.String(length=512), nullable=False),
        sa.Column("reason", sa.String(length=1024), nullable=True),
        sa.Column("failure", JSON, nullable=True),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("approved_by", sa.String(length=200), nullable=True),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_by", sa.String(length=200), nullable=True),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("end_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('draft', 'awaiting_approval', 'scheduled', "
            "'running', 'paused', 'rolling_back', 'rolled_back', 'completed', 'aborted')",
            name=op.f("ck_rollouts_state"),
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_rollouts_group_id_groups")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
    )
    op.create_index(op.f("ix_rollouts_group_id"), "rollouts", ["group_id"], unique=False)
    op.create_index(op.f("ix_rollouts_state_model"), "rollouts", ["state", "model"], unique=False)

    op.create_table(
        "webhook_deliveries",
        sa.Column("id", ID, nullable=False),
        sa.Column("webhook_id", ID, nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("verb", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.String(length=512), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('waiting', 'delivered', 'given_up')",
            name=op.f("ck_webhook_deliveries_state"),
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_webhook_deliveries_webhook_id_webhooks"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index(
        op.f("ix_webhook_deliveries_state_due_at"),
        "webhook_deliveries",
        ["state", "due_at"],
        unique=False,
    )
    op.create_index(
        op.f("ix_webhook_deliveries_webhook_id_id"),
        "webhook_deliveries",
        ["webhook_id", "id"],
        unique=False,
    )

    op.create_table(
        "rollout_decisions",
        sa.Column("id", ID, nullable=False),
        sa.Column("rollout_id", ID, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("numbers", JSON, nullable=False),
        sa.Column("sentence", sa.String(length=1024), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"],
            ["rollouts.id"],
            name=op.f("fk_rollout_decisions_rollout_id_rollouts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_decisions")),
        sa.UniqueConstraint(
            "rollout_id", "generation", name=op.f("uq_rollout_decisions_rollout_id_generation")
        ),
    )
    op.create_table(
        "rollout_devices",
        sa.Column("rollout_id", ID, nullable=False),
        sa.Column("device_id", ID, nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("leased_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("switched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.String(length=512), nullable=True),
        sa.Column("slices", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_rollout_devices_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["rollout_id"],
            ["rollouts.id"],
            name=op.f("fk_rollout_devices_rollout_id_rollouts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("rollout_id", "device_id", name=op.f("pk_rollout_devices")),
    )
    op.create_index(
        op.f("ix_rollout_devices_device_id"), "rollout_devices", ["device_id"], unique=False
    )
    op.create_index(
        op.f("ix_rollout_devices_rollout_id_outcome_changed_at"),
        "rollout_devices",
        ["rollout_id", "outcome", "changed_at"],
        unique=False,
    )

    op.create_table(
        "rollout_samples",
        sa.Column("id", ID, nullable=False),
        sa.Column("rollout_id", ID, nullable=False),
        sa.Column("device_id", ID, nullable=False),
        sa.Column("metric", sa.String(length=80), nullable=False),
        sa.Column("arm", sa.String(length=4), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("reference", sa.Float(), nullable=True),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("slices", JSON, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["devices.id"],
            name=op.f("fk_rollout_samples_device_id_devices"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["rollout_id"],
            ["rollouts.id"],
            name=op.f("fk_rollout_samples_rollout_id_rollouts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollout_samples")),
    )
    op.create_index(
        op.f("ix_rollout_samples_rollout_id_metric_id"),
        "rollout_samples",
        ["rollout_id", "metric", "id"],
        unique=False,
    )

    op.create_table(
        "rollout_sketches",
        sa.Column("rollout_id", ID, nullable=False),
        sa.Column("arm", sa.String(length=4), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("sketch", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"],
            ["rollouts.id"],
            name=op.f("fk_rollout_sketches_rollout_id_rollouts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("rollout_id", "arm", "metric", name=op.f("pk_rollout_sketches")),
    )
    op.create_table(
        "rollout_waves",
        sa.Column("rollout_id", ID, nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("soaking_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verdict", JSON, nullable=True),
        sa.ForeignKeyConstraint(
            ["rollout_id"],
            ["rollouts.id"],
            name=op.f("fk_rollout_waves_rollout_id_rollouts"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("rollout_id", "wave", name=op.f("pk_rollout_waves")),
    )
    zero = sa.text("0")
    op.add_column(
        "devices", sa.Column("bucket", sa.BigInteger(), nullable=False, server_default=zero)
    )
    op.add_column(
        "devices", sa.Column("acked_window", sa.BigInteger(), nullable=False, server_default=zero)
    )
    _fill_buckets(op.get_bind())


def _fill_buckets(connection: sa.Connection) -> None:
    """Hash the names of the devices that are there."""
    devices = sa.table("devices", sa.column("id"), sa.column("name"), sa.column("bucket"))
    fill = devices.update().where(devices.c.id == sa.bindparam("device"))
    fill = fill.values(bucket=sa.bindparam("new"))
    last = 0
    while True:
        page = sa.select(devices.c.id, devices.c.name).where(devices.c.id > last)
        rows = connection.execute(page.order_by(devices.c.id).limit(BATCH)).all()
        if not rows:
            return
        last = rows[-1].id
        connection.execute(fill, [{"device": r.id, "new": _bucket(r.name)} for r in rows])


def _bucket(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % PRIME


def downgrade() -> None:
    op.drop_column("devices", "acked_window")
    op.drop_column("devices", "bucket")

    op.drop_table("rollout_waves")
    op.drop_table("rollout_sketches")
    op.drop_index(op.f("ix_rollout_samples_rollout_id_metric_id"), table_name="rollout_samples")

    op.drop_table("rollout_samples")
    op.drop_index(
        op.f("ix_rollout_devices_rollout_id_outcome_changed_at"), table_name="rollout_devices"
    )
    op.drop_index(op.f("ix_rollout_devices_device_id"), table_name="rollout_devices")

    op.drop_table("rollout_devices")
    op.drop_table("rollout_decisions")
    op.drop_index(op.f("ix_webhook_deliveries_webhook_id_id"), table_name="webhook_deliveries")
    op.drop_index(op.f("ix_webhook_deliveries_state_due_at"), table_name="webhook_deliveries")

    op.drop_table("webhook_deliveries")
    op.drop_index(op.f("ix_rollouts_state_model"), table_name="rollouts")
    op.drop_index(op.f("ix_rollouts_group_id"), table_name="rollouts")

    op.drop_table("rollouts")
    op.drop_table("device_metrics")
    op.drop_table("webhooks")
    op.drop_table("policies")

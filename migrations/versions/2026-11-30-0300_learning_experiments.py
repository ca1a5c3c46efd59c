"""A plan's rounds belong to an experiment, which has the group, the policy and the end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "learning_experiments"
down_revision = "drift"
branch_labels = None
depends_on = None
expand_only = False

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
EVERYONE = {"name": "everyone", "waves": [{"name": "100%", "percent": 100.0}]}
PRIME = 2147483647
"""Above each device's position: all devices took part (`devices.tables.PRIME`)."""
MOVED = {
    "plan_id": BIG,
    "model": sa.String(64),
    "plan": sa.String(64),
    "plan_sha256": sa.String(64),
    "group_id": BIG,
    "group": sa.String(64),
    "opened_by": sa.String(200),
    "detail": sa.String(512),
}
INDEXED = ("plan_id", "model", "plan_sha256")
FOREIGN = {"plan_id": ("plans", None), "group_id": ("groups", "SET NULL")}


def upgrade() -> None:
    _make_experiments()
    _fill_experiments()
    for column in ("experiment_id", "number", "devices", "examples", "size"):
        op.add_column("learning_rounds", sa.Column(column, BIG, nullable=True))
    op.execute(
        "UPDATE learning_rounds SET experiment_id = id, number = 1, (devices, examples, size) ="
        " (SELECT count(*), coalesce(sum(u.examples), 0), coalesce(sum(u.size), 0)"
        " FROM learning_updates u WHERE u.round_id = learning_rounds.id)"
    )
    for column in INDEXED:
        op.drop_index(op.f(f"ix_learning_rounds_{column}"), table_name="learning_rounds")
    with op.batch_alter_table("learning_rounds") as rounds:
        for column, (table, _) in FOREIGN.items():
            rounds.drop_constraint(op.f(f"fk_learning_rounds_{column}_{table}"), type_="foreignkey")
        for column in MOVED:
            rounds.drop_column(column)
        rounds.alter_column("experiment_id", existing_type=BIG, nullable=False)
        for column in ("number", "devices", "examples"):
            rounds.alter_column(
                column,
                existing_type=BIG,
                type_=sa.Integer(),
                existing_nullable=True,
                nullable=False,
            )
        rounds.alter_column("size", existing_type=BIG, nullable=False)
        rounds.create_foreign_key(
            op.f("fk_learning_rounds_experiment_id_learning_experiments"),
            "learning_experiments",
            ["experiment_id"],
            ["id"],
            ondelete="CASCADE",
        )
        rounds.create_unique_constraint(
            op.f("uq_learning_rounds_experiment_id_number"), ["experiment_id", "number"]
        )


def _make_experiments() -> None:
    op.create_table(
        "learning_experiments",
        sa.Column("id", BIG, nullable=False),
        sa.Column("plan_id", BIG, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("plan", sa.String(64), nullable=False),
        sa.Column("plan_sha256", sa.String(64), nullable=False),
        sa.Column("group_id", BIG, nullable=True),
        sa.Column("group", sa.String(64), nullable=False),
        sa.Column("policy", JSON, nullable=False),
        sa.Column("multiplier", sa.BigInteger(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("threshold", sa.BigInteger(), nullable=False),
        sa.Column("wave_opened_at", TIME, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("opened_by", sa.String(200), nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("ended_by", sa.String(200), nullable=True),
        sa.Column("detail", sa.String(512), nullable=True),
        sa.ForeignKeyConstraint(
            ["plan_id"], ["plans.id"], name=op.f("fk_learning_experiments_plan_id_plans")
        ),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["groups.id"],
            name=op.f("fk_learning_experiments_group_id_groups"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_learning_experiments")),
    )
    for column in (*INDEXED, "state"):
        op.create_index(op.f(f"ix_learning_experiments_{column}"), "learning_experiments", [column])


def _fill_experiments() -> None:
    """Each round was a whole experiment, of all devices at once."""
    op.get_bind().execute(
        sa.text(
            "INSERT INTO learning_experiments (id, plan_id, model, plan, plan_sha256, group_id,"
            ' "group", policy, multiplier, "offset", wave, threshold, wave_opened_at, state,'
            " opened_at, opened_by, ended_at, ended_by, detail)"
            ' SELECT id, plan_id, model, plan, plan_sha256, group_id, "group", :policy, 1, 0, 0,'
            " :prime, opened_at, CASE state WHEN 'done' THEN 'completed' WHEN 'failed' THEN"
            " 'failed' ELSE 'running' END, opened_at, opened_by, ended_at,"
            " CASE WHEN ended_at IS NULL THEN NULL ELSE 'server' END, detail FROM learning_rounds"
        ).bindparams(sa.bindparam("policy", EVERYONE, JSON), prime=PRIME)
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('learning_experiments', 'id'),"
            " (SELECT coalesce(max(id), 0) + 1 FROM learning_experiments), false)"
        )


def downgrade() -> None:
    for column, kind in MOVED.items():
        op.add_column("learning_rounds", sa.Column(column, kind, nullable=True))
    op.execute(
        "UPDATE learning_rounds SET"
        ' (plan_id, model, plan, plan_sha256, group_id, "group", opened_by, detail) ='
        ' (SELECT e.plan_id, e.model, e.plan, e.plan_sha256, e.group_id, e."group", e.opened_by,'
        " e.detail FROM learning_experiments e WHERE e.id = learning_rounds.experiment_id)"
    )
    with op.batch_alter_table("learning_rounds") as rounds:
        rounds.drop_constraint(
            op.f("fk_learning_rounds_experiment_id_learning_experiments"), type_="foreignkey"
        )
        rounds.drop_constraint(op.f("uq_learning_rounds_experiment_id_number"), type_="unique")
        for column in ("experiment_id", "number", "devices", "examples", "size"):
            rounds.drop_column(column)
        for column, kind in MOVED.items():
            if column not in ("group_id", "detail"):
                rounds.alter_column(column, existing_type=kind, nullable=False)
        for column, (table, ondelete) in FOREIGN.items():
            rounds.create_foreign_key(
                op.f(f"fk_learning_rounds_{column}_{table}"),
                table,
                [column],
                ["id"],
                ondelete=ondelete,
            )
    for column in INDEXED:
        op.create_index(op.f(f"ix_learning_rounds_{column}"), "learning_rounds", [column])
    op.drop_table("learning_experiments")

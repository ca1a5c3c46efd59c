"""People who sign in, limits of what a token may change, and a chain through the audit log."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from pilotwave_protocol.auditchain import START, chained

revision = "people_and_audit_chain"
down_revision = "rollouts"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)

SQLITE_GUARDS = [
    f"CREATE TRIGGER audit_events_no_{deed} BEFORE {deed.upper()} ON audit_events "
    "BEGIN SELECT RAISE(ABORT, 'audit events are only ever added'); END"
    for deed in ("update", "delete")
]
POSTGRESQL_GUARDS = [
    "CREATE TRIGGER audit_events_no_change BEFORE UPDATE OR DELETE ON audit_events "
    "FOR EACH ROW EXECUTE FUNCTION audit_events_only_added()",
]


def unguard() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_events_no_change ON audit_events")
    else:
        for deed in ("update", "delete"):
            op.execute(f"DROP TRIGGER audit_events_no_{deed}")


def guard() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    for statement in POSTGRESQL_GUARDS if postgres else SQLITE_GUARDS:
        op.execute(statement)


def chain() -> None:
    """Chain what is there already."""
    connection = op.get_bind()
    events = sa.table(
        "audit_events",
        *(sa.column(name) for name in ("id", "actor", "verb", "object", "sha256")),
        sa.column("at", TIME),
        sa.column("before", JSON),
        sa.column("after", JSON),
    )
    head, count = START, 0
    for row in connection.execute(sa.select(events).order_by(events.c.id)).mappings().all():
        event: dict[str, Any] = dict(row)
        event["at"] = moment(event["at"])
        head, count = chained(head, event), count + 1
        this = events.c.id == row["id"]
        connection.execute(sa.update(events).where(this).values(sha256=head))
    heads = sa.table("audit_head", sa.column("id"), sa.column("sha256"), sa.column("events"))
    connection.execute(sa.insert(heads).values(id=1, sha256=head, events=count))


def moment(at: datetime) -> str:
    aware = at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at.astimezone(timezone.utc)
    return aware.isoformat(timespec="microseconds").replace("+00:00", "Z")


def upgrade() -> None:
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_audit_head_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    unguard()
    op.add_column("audit_events", sa.Column("sha256", sa.String(length=64), nullable=True))
    chain()
    with op.batch_alter_table("audit_events") as table:
        table.alter_column("sha256", existing_type=sa.String(length=64), nullable=False)
    guard()
    with op.batch_alter_table("operator_tokens") as table:
        table.add_column(sa.Column("models", JSON, nullable=True))
        table.add_column(sa.Column("groups", JSON, nullable=True))
    op.create_table(
        "people",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=True),
        sa.Column("totp_secret", sa.String(length=64), nullable=True),
        sa.Column("totp_step", sa.BigInteger(), nullable=False),
        sa.Column("oidc_subject", sa.String(length=600), nullable=True),
        sa.Column("language", sa.String(length=16), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("last_login_at", TIME, nullable=True),
        sa.Column("disabled_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people")),
        sa.UniqueConstraint("name", name=op.f("uq_people_name")),
        sa.UniqueConstraint("oidc_subject", name=op.f("uq_people_oidc_subject")),
    )
    op.create_table(
        "login_links",
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("person_id", ID, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["people.id"],
            name=op.f("fk_login_links_person_id_people"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_login_links")),
    )
    op.create_index(op.f("ix_login_links_person_id"), "login_links", ["person_id"])
    op.create_table(
        "login_throttle",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("blocked_until", TIME, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_throttle")),
    )
    op.create_index(op.f("ix_login_throttle_at"), "login_throttle", ["at"])
    op.create_table(
        "person_sessions",
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("person_id", ID, nullable=False),
        sa.Column("csrf", sa.String(length=64), nullable=False),
        sa.Column("half_way", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["person_id"],
            ["people.id"],
            name=op.f("fk_person_sessions_person_id_people"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("secret_sha256", name=op.f("pk_person_sessions")),
    )
    op.create_index(op.f("ix_person_sessions_expires_at"), "person_sessions", ["expires_at"])
    op.create_index(op.f("ix_person_sessions_person_id"), "person_sessions", ["person_id"])


def downgrade() -> None:
    op.drop_table("person_sessions")
    op.drop_table("login_throttle")
    op.drop_table("login_links")
    op.drop_table("people")
    with op.batch_alter_table("operator_tokens") as table:
        table.drop_column("groups")
        table.drop_column("models")
    unguard()
    with op.batch_alter_table("audit_events") as table:
        table.drop_column("sha256")
    guard()
    op.drop_table("audit_head")

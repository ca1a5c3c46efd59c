"""A name at an OpenID Connect provider tied itself to the account of that name: such ties end where
nobody meant them. What an upgrade decided is listed for the operator.

A tie stays where an admin made the account for it and no password was ever set. It ends where the
account has a password, and at the first admin's, which `init` made.
"""

from __future__ import annotations

from datetime import datetime, timezone

import sqlalchemy as sa
from alembic import op

revision = "bind_people_by_hand"
down_revision = "deltas_are_cleared"
branch_labels = None
depends_on = None

people = sa.table(
    "people",
    sa.column("id", sa.BigInteger),
    sa.column("name", sa.String),
    sa.column("password_hash", sa.String),
    sa.column("oidc_subject", sa.String),
    sa.column("created_by", sa.String),
)
sessions = sa.table("person_sessions", sa.column("person_id", sa.BigInteger))
ENDED = (
    "was tied to the provider's subject {subject} by its name alone; the tie has ended. If it was "
    "right: pilotwave people bind {name} --issuer {issuer} --subject {sub} --remove-password"
)
STAYS = (
    "is tied to the provider's subject {subject} since somebody of that name signed in first. If "
    "it is wrong: pilotwave people unbind {name}"
)


def upgrade() -> None:
    notices = op.create_table(
        "notices",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("object", sa.String(200), nullable=False),
        sa.Column("sentence", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    now = datetime.now(timezone.utc)
    if op.get_bind().dialect.name == "sqlite":
        now = now.replace(tzinfo=None)
    told = []
    for row in op.get_bind().execute(sa.select(people).where(people.c.oidc_subject.is_not(None))):
        ends = row.password_hash is not None or row.created_by == "server"
        if ends:
            _end(row.id)
        issuer, _, sub = row.oidc_subject.partition(" ")
        values = {"name": row.name, "subject": row.oidc_subject, "issuer": issuer, "sub": sub}
        sentence = (ENDED if ends else STAYS).format(**values)
        told.append({"object": f"person/{row.name}", "sentence": sentence, "at": now})
    if told:
        op.bulk_insert(notices, told)


def _end(person: int) -> None:
    op.get_bind().execute(sa.update(people).where(people.c.id == person).values(oidc_subject=None))
    op.get_bind().execute(sa.delete(sessions).where(sessions.c.person_id == person))


def downgrade() -> None:
    op.drop_table("notices")

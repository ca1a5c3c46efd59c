"""The migrations lead to the tables that the code has, from empty and back, on both databases."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from pilotwave_server import migrate, schema
from pilotwave_server.audit.notices import list_notices
from pilotwave_server.audit.service import record
from pilotwave_server.db import Database, FleetRow, UtcDateTime
from pilotwave_server.errors import NotInitialised

NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)


def tables(url: str) -> set[str]:
    with migrate.connection(url) as connection:
        return set(inspect(connection).get_table_names()) - {"alembic_version"}


def differences(url: str) -> list[object]:
    def same_type(*args: object) -> bool | None:
        return False if isinstance(args[-1], UtcDateTime) else None

    with migrate.connection(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": same_type})
        return list(compare_metadata(context, schema.metadata))


def test_migrating_from_empty_makes_exactly_the_tables_of_the_code(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    assert tables(empty_database_url) == set(schema.metadata.tables)
    assert differences(empty_database_url) == []


def test_migrating_again_changes_nothing(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    migrate.upgrade(empty_database_url)
    assert differences(empty_database_url) == []


def test_the_newest_migration_goes_down_and_up_again(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    migrate.downgrade(empty_database_url, "-1")
    migrate.upgrade(empty_database_url)
    assert differences(empty_database_url) == []


def test_all_the_way_down_leaves_nothing_and_up_again_all(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    migrate.downgrade(empty_database_url, "base")
    assert tables(empty_database_url) == set()
    migrate.upgrade(empty_database_url)
    assert differences(empty_database_url) == []


def test_there_is_one_line_of_migrations_named_by_date_and_deed() -> None:
    assert len(migrate.scripts().get_heads()) == 1
    for script in migrate.scripts().walk_revisions():
        name = script.path.rpartition("/")[2]
        assert name[4] == name[7] == name[10] == "-", name
        assert name.endswith(f"_{script.revision}.py"), name


def test_a_migrated_database_refuses_to_change_the_audit_log(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    db = Database(empty_database_url)
    with db.write() as session:
        session.add(FleetRow(fleet="test"))
        record(session, actor="server", verb="test", object="test", now=NOW)
    for statement in ("DELETE FROM audit_events", "UPDATE audit_events SET verb = 'x'"):
        with pytest.raises(DBAPIError, match="only ever added"), db.write() as session:
            session.execute(text(statement))
    db.close()


def test_an_empty_database_is_told_from_one_at_head(empty_database_url: str) -> None:
    db = Database(empty_database_url)
    with db.write() as session, pytest.raises(NotInitialised, match="pilotwave-server init"):
        migrate.require_usable(session)
    migrate.upgrade(empty_database_url)
    with db.read() as session:
        assert migrate.require_usable(session) == migrate.head()
    db.close()


def test_ties_by_name_end_where_nobody_meant_them_and_all_are_listed(
    empty_database_url: str,
) -> None:
    """Signing in under the name of an account tied it for good; the first admin's too."""
    migrate.upgrade(empty_database_url, "deltas_are_cleared")
    db = Database(empty_database_url)
    rows = [
        # (name, made by, password, subject, the tie stays)
        ("admin", "server", None, "https://idp.example mallory", False),
        ("ada", "person/admin", "$argon2id$x", "https://idp.example ada", False),
        ("bob", "token/admin", None, "https://idp.example bob", True),
        ("eve", "token/admin", None, None, False),
    ]
    with db.write() as session:
        for number, (name, by, password, subject, _) in enumerate(rows, 1):
            session.execute(
                text(
                    "INSERT INTO people (id, name, role, password_hash, totp_step, oidc_subject,"
                    " created_at, created_by) VALUES (:id, :name, 'admin', :password, 0, :subject,"
                    " :at, :by)"
                ),
                {
                    "id": number,
                    "name": name,
                    "password": password,
                    "subject": subject,
                    "at": str(NOW)[:19],
                    "by": by,
                },
            )
            session.execute(
                text(
                    "INSERT INTO person_sessions VALUES (:secret, :id, 'c', false, :at, :at, :at)"
                ),
                {"secret": name, "id": number, "at": str(NOW)[:19]},
            )
    migrate.upgrade(empty_database_url)
    with db.read() as session:
        query = text("SELECT name FROM people WHERE oidc_subject IS NOT NULL")
        assert set(session.scalars(query)) == {name for name, *_, stays in rows if stays}
        still = set(session.scalars(text("SELECT secret_sha256 FROM person_sessions")))
        notices = {row.object: row.sentence for row in list_notices(session)}
    db.close()
    assert still == {"bob", "eve"}
    assert set(notices) == {"person/admin", "person/ada", "person/bob"}
    assert "--subject mallory" in notices["person/admin"]
    assert "pilotwave people unbind bob" in notices["person/bob"]

"""Which older code may go on with a database that a newer one migrated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from pilotwave_server import migrate
from pilotwave_server.db import Database
from tools.check_migrations import undecided

BEFORE = "server_keys"


def run(db: Database, statement: str, **given: object) -> None:
    with db.write() as session:
        session.execute(text(statement), given)


def go_ahead(db: Database, oldest: str) -> None:
    """As a newer version leaves it."""
    run(db, "UPDATE alembic_version SET version_num = 'from_the_future'")
    run(db, "UPDATE schema_state SET oldest = :oldest", oldest=oldest)


def test_each_migration_has_decided() -> None:
    assert list(undecided()) == []


def test_a_database_ahead_is_used_if_it_says_that_this_code_may(
    db: Database, database_url: str
) -> None:
    go_ahead(db, migrate.head())
    migrate.upgrade(database_url)  # as a container does at its start
    with db.read() as session:
        assert migrate.require_usable(session) == "from_the_future"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda db: go_ahead(db, "from_the_future"),
        lambda db: run(db, "DELETE FROM schema_state"),
        lambda db: run(db, "DROP TABLE schema_state"),
    ],
)
def test_a_database_ahead_that_does_not_say_so_is_refused(
    db: Database, database_url: str, spoil: Callable[[Database], None]
) -> None:
    go_ahead(db, migrate.head())
    spoil(db)
    with db.read() as session, pytest.raises(migrate.SchemaUnknown, match="newer Pilotwave"):
        migrate.require_usable(session)
    with pytest.raises(migrate.SchemaUnknown):
        migrate.upgrade(database_url)


def test_the_first_migration_that_says_so_stops_all_before_it(empty_database_url: str) -> None:
    def oldest() -> str | None:
        with migrate.connection(empty_database_url) as connection:
            return migrate.oldest_code(connection)

    migrate.upgrade(empty_database_url, BEFORE)
    assert oldest() is None
    migrate.upgrade(empty_database_url, "schema_tolerance")
    assert oldest() == "schema_tolerance"
    migrate.downgrade(empty_database_url, BEFORE)
    assert oldest() is None

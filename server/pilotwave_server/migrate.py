"""Bringing a database to the schema that this code needs, and saying when it is not there.

The migrations themselves are under `migrations/` in a checkout and `_migrations/` in an installed
package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.orm import Session

from pilotwave_server.db import parse_url, prepare_sqlite
from pilotwave_server.errors import NotInitialised, SetupError

# An arbitrary number that two servers migrating at once agree on.
ADVISORY_LOCK = 0x70_69_6C_6F_74


class SchemaBehind(SetupError):
    code = "schema_behind"


class SchemaUnknown(SetupError):
    code = "schema_unknown"


class BrokenReference(SetupError):
    code = "broken_reference"


def scripts_dir() -> Path:
    installed = Path(__file__).parent / "_migrations"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "migrations"


def alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_dir()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@lru_cache(maxsize=1)
def scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config())


def head() -> str:
    """The revision that this code needs."""
    found = scripts().get_current_head()
    if found is None:
        raise SchemaUnknown("this installation holds no migrations: install it again")
    return found


def current(session: Session) -> str | None:
    """The revision that the database is at; None when it was never migrated."""
    return MigrationContext.configure(session.connection()).get_current_revision()


def require_head(session: Session) -> str:
    """The revision of a database that is where this code needs it; NotInitialised, SchemaBehind,
    SchemaUnknown otherwise."""
    found, needed = current(session), head()
    if found is None:
        raise NotInitialised(
            "the database is empty: run `pilotwave-server init --data FOLDER --fleet NAME` "
            "with the settings of this server"
        )
    if found == needed:
        return found
    if found in {script.revision for script in scripts().walk_revisions()}:
        raise SchemaBehind(
            f"the database is at {found} and this version needs {needed}: "
            "run `pilotwave-server migrate --data FOLDER` with the settings of this server"
        )
    raise SchemaUnknown(
        f"the database is at {found}, which this version does not know: "
        "it was migrated by a newer Pilotwave; run that one"
    )


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up, all or nothing. Two at once go one after the other."""
    with connection(url) as connected:
        command.upgrade(alembic_config(connected), revision)


def downgrade(url: str, revision: str) -> None:
    """Migrate down to `revision` (`base`, `-1`, a name), all or nothing."""
    with connection(url) as connected:
        command.downgrade(alembic_config(connected), revision)


@contextmanager
def connection(url: str) -> Iterator[Connection]:
    """A connection in one transaction, fit for changing tables."""
    parsed = parse_url(url)
    engine = create_engine(parsed, hide_parameters=True)
    sqlite = engine.dialect.name == "sqlite"
    if sqlite:
        # A table is changed by copying and dropping it, which must not take along what refers to
        # it. The setting is without effect inside a transaction, hence an engine of its own.
        pragmas = ["PRAGMA foreign_keys = OFF", "PRAGMA journal_mode = WAL"]
        prepare_sqlite(engine, pragmas, begin="BEGIN IMMEDIATE")
    try:
        with engine.begin() as connected:
            if not sqlite:
                connected.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
            yield connected
            if sqlite and connected.execute(text("PRAGMA foreign_key_check")).first():
                raise BrokenReference("a migration left a row that refers to one that is gone")
    finally:
        engine.dispose()

"""Bringing a database to the schema that this code needs, and saying when it is not there.

The migrations themselves are under `migrations/` in a checkout and `_migrations/` in an installed
package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, inspect, select, text, update
from sqlalchemy.orm import Session

from pilotwave_server.db import SchemaRow
from pilotwave_server.engines import migrating_engine, parse_url, prepare_sqlite
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


def require_usable(session: Session) -> str:
    """The revision of a database that this code can work with: where this code needs it, or ahead
    of that if the database says that this code may go on. NotInitialised, SchemaBehind,
    SchemaUnknown otherwise."""
    found = current(session)
    if found in known() or oldest_code(session.connection()) not in known():
        return require_head(session)
    return str(found)


def require_head(session: Session) -> str:
    """The revision of a database that is where this code needs it: every column is one that the
    code knows. NotInitialised, SchemaBehind, SchemaUnknown otherwise."""
    found, needed = current(session), head()
    if found is None:
        raise NotInitialised(
            "the database is empty: run `pilotwave-server init --data FOLDER --fleet NAME` "
            "with the settings of this server"
        )
    if found == needed:
        return found
    if found in known():
        raise SchemaBehind(
            f"the database is at {found} and this version needs {needed}: "
            "run `pilotwave-server migrate --data FOLDER` with the settings of this server"
        )
    raise SchemaUnknown(
        f"the database is at {found}, which this version does not know: "
        "it was migrated by a newer Pilotwave; run that one"
    )


@lru_cache(maxsize=1)
def known() -> frozenset[str]:
    """The revisions that this code knows. As it knows none after its own, whatever it knows is its
    own or older."""
    return frozenset(script.revision for script in scripts().walk_revisions())


def oldest_code(connection: Connection) -> str | None:
    """The revision of the oldest code that may go on with the database; None: it does not say."""
    if not inspect(connection).has_table(SchemaRow.__tablename__):
        return None
    return connection.execute(select(SchemaRow.oldest)).scalar()


def note_oldest(*, ctx: MigrationContext, step: Any, **given: Any) -> None:
    """Write down, after each migration, which older code may go on: the same as before if it only
    expands, else none before it. Called by Alembic, in the migration's transaction."""
    connection = ctx.connection
    if connection is None or not inspect(connection).has_table(SchemaRow.__tablename__):
        return
    oldest, at = oldest_code(connection), step.up_revision
    if step.is_upgrade:
        new = at.revision
        if oldest is not None and getattr(at.module, "expand_only", False):
            return
    elif oldest == at.revision:
        new = at.down_revision
    else:
        return
    rows = update(SchemaRow) if oldest is not None else insert(SchemaRow)
    connection.execute(rows.values(id=1, oldest=new))


def stops_older(connection: Connection) -> bool:
    """Whether a migration to this code's schema stops servers of the schema that is there now."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None or found not in known():
        return False
    steps = scripts().iterate_revisions("heads", found)
    return not all(getattr(step.module, "expand_only", False) for step in steps)


def upgrade(url: str, revision: str = "head") -> None:
    """Migrate up, all or nothing. Two at once go one after the other. A database that is ahead is
    left as it is if this code may go on with it."""
    with connection(url) as connected:
        found = MigrationContext.configure(connected).get_current_revision()
        if found is None or found in known():
            command.upgrade(alembic_config(connected), revision)
        else:
            with Session(connected) as session:
                require_usable(session)


def downgrade(url: str, revision: str) -> None:
    """Migrate down to `revision` (`base`, `-1`, a name), all or nothing."""
    with connection(url) as connected:
        command.downgrade(alembic_config(connected), revision)


@contextmanager
def connection(url: str) -> Iterator[Connection]:
    """A connection in one transaction, fit for changing tables."""
    parsed = parse_url(url)
    engine = migrating_engine(parsed)
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

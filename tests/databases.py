"""New databases for tests, cheaply: each is a copy of one template made per session."""

from __future__ import annotations

import contextlib
import importlib.util
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from pilotwave_server import migrate
from pilotwave_server.db import Database, FleetRow
from pilotwave_server.settings import Settings

FLEET = "test-fleet"


def fill(url: str) -> None:
    """Make every table, as the migrations do it, and the fleet's row."""
    migrate.upgrade(url)
    db = Database(url)
    with db.write() as session:
        session.add(FleetRow(fleet=FLEET))
    db.close()


def make_sqlite_template(path: Path) -> Path:
    fill(f"sqlite:///{path}")
    return path


@contextlib.contextmanager
def postgres_template(server: str) -> Iterator[str]:
    """The name of a filled database on `server`."""
    with fresh_postgres(server) as url:
        fill(url)
        yield str(make_url(url).database)


@contextlib.contextmanager
def fresh_postgres(server: str, *, template: str = "template0") -> Iterator[str]:
    """The URL of a new database on `server`, dropped afterwards."""
    name = f"pw_test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(made.format(sql.Identifier(name), sql.Identifier(template)))
        try:
            url = make_url(server).set(database=name)
            yield url.render_as_string(hide_password=False)
        finally:
            # FORCE: a test that failed may have left a connection behind.
            gone = sql.SQL("DROP DATABASE {} WITH (FORCE)")
            connection.execute(gone.format(sql.Identifier(name)))


def prepare_data_dir(settings: Settings) -> Settings:
    """Put into the data folder what `init` puts there besides the database."""
    if importlib.util.find_spec("pilotwave_server.registry"):
        from pilotwave_server.keystore.folder import FolderKeys
        from pilotwave_server.registry.keys import ensure_server_keys

        ensure_server_keys(FolderKeys(settings.keys_dir))
    return settings

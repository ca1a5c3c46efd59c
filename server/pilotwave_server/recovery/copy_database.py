"""A database as one SQLite file, and back: the same file for SQLite and for PostgreSQL.

Hence a backup of the one can be restored into the other. `counters` are the numbers up to which
tables have counted their rows: rows that are gone keep theirs.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import Connection, Table, create_engine, func, inspect, select, text

from pilotwave_server import migrate
from pilotwave_server.blobs.upload import fsync_folder
from pilotwave_server.db import Database
from pilotwave_server.engines import parse_url, prepare_sqlite
from pilotwave_server.recovery.archive import PlaceTaken
from pilotwave_server.schema import metadata

ROWS = 1000


def copy_out(db: Database, to: Path) -> dict[str, int]:
    """Write one moment of a database, which goes on being used, to the new file `to`; return its
    counters. The database has to be at this version's migration."""
    if db.is_sqlite:
        with closing(sqlite3.connect(str(db.url.database), timeout=30)) as connection:
            connection.execute("VACUUM INTO ?", (str(to),))
        with closing(sqlite3.connect(to)) as connection:
            return dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    migrate.upgrade(f"sqlite:///{to}")
    # one REPEATABLE READ transaction, as of each read session
    with db.reader.connect() as source, migrate.connection(f"sqlite:///{to}") as target:
        counters = {table.name: _last_number(source, table) for table in _counted(source)}
        _copy(source, target)
        for name, counter in counters.items():
            counted = text("UPDATE sqlite_sequence SET seq = :n WHERE name = :name AND seq < :n")
            target.execute(counted, {"n": counter, "name": name})
    return counters


def require_empty(url: str) -> None:
    """Raise PlaceTaken where a database is there already."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        if os.path.lexists(str(parsed.database)):
            raise PlaceTaken(f"there is a database at {parsed.database} already: move it away")
        return
    engine = create_engine(parsed, hide_parameters=True)
    try:
        found = inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if found:
        raise PlaceTaken(
            f"the database {parsed.database} holds {len(found)} tables already: make an empty one"
        )


def bring_up(copy: Path) -> None:
    """Migrate a copy to this version. Raises SchemaUnknown where it is of a newer one."""
    made = Database(f"sqlite:///{copy}")
    try:
        with made.read() as session, suppress(migrate.SchemaBehind):
            migrate.require_head(session)
    finally:
        made.close()
    migrate.upgrade(f"sqlite:///{copy}")


def copy_in(copy: Path, url: str, counters: Mapping[str, int]) -> None:
    """Bring a copy that `bring_up` has migrated to where `url` says, where nothing is."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        _place(copy, Path(str(parsed.database)))
        return
    migrate.upgrade(url)
    engine = create_engine(f"sqlite:///{copy}")
    prepare_sqlite(engine, [], begin="BEGIN")
    try:
        with engine.connect() as source, migrate.connection(url) as target:
            _copy(source, target)
            for table in _counted(target):
                _count_from(target, table, counters.get(table.name, 0))
    finally:
        engine.dispose()


def _place(copy: Path, to: Path) -> None:
    # what migrating left in the journal goes into the file itself
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = to.with_name(f".{to.name}.new")
    with copy.open("rb") as source, new.open("wb") as out:
        shutil.copyfileobj(source, out, 1024 * 1024)
        out.flush()
        os.fsync(out.fileno())
    new.rename(to)
    fsync_folder(to.parent)


def _copy(source: Connection, target: Connection) -> None:
    """Copy all rows, in the order in which tables refer to each other."""
    for table in reversed(metadata.sorted_tables):  # what migrations have put there
        if target.execute(select(func.count()).select_from(table)).scalar():
            target.execute(table.delete())
    for table in metadata.sorted_tables:
        rows = source.execution_options(stream_results=True).execute(
            select(table).order_by(*table.primary_key)
        )
        for part in rows.mappings().partitions(ROWS):
            target.execute(table.insert(), [dict(row) for row in part])


def _counted(connection: Connection) -> list[Table]:
    """The tables of PostgreSQL whose rows it numbers."""
    return [t for t in metadata.sorted_tables if "id" in t.c and _sequence(connection, t)]


def _sequence(connection: Connection, table: Table) -> str | None:
    found = connection.scalar(select(func.pg_get_serial_sequence(table.name, "id")))
    return None if found is None else str(found)


def _last_number(connection: Connection, table: Table) -> int:
    last = connection.scalar(text(f"SELECT last_value FROM {_sequence(connection, table)}"))  # noqa: S608 - a name that the database gave
    return int(last or 0)


def _count_from(connection: Connection, table: Table, counter: int) -> None:
    highest = connection.scalar(select(func.max(table.c.id))) or 0
    last = max(highest, counter)
    if last:
        connection.execute(select(func.setval(_sequence(connection, table), last)))

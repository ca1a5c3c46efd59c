"""Open a database by its URL: SQLite as a file, PostgreSQL as connections that are kept."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from pilotwave_server.errors import BadSetting

BUSY_TIMEOUT_MS = 30_000
EXPECTED_URL = "expected sqlite:///path/to/file.db or postgresql://user@host/database"


def parse_url(url: str) -> URL:
    """A SQLAlchemy URL for `sqlite:///path` or `postgresql://…`, or BadSetting. PostgreSQL's may
    name several hosts, as in `postgresql://user@one:5432,two:5433/database`."""
    if url.partition("://")[0] in ("postgresql", "postgres", "postgresql+psycopg"):
        return _postgresql_url(url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        # The URL may hold a password, so it is not repeated.
        raise BadSetting(f"the database URL cannot be read: {EXPECTED_URL}") from error
    if parsed.drivername in ("sqlite", "sqlite+pysqlite") and parsed.database:
        return parsed.set(drivername="sqlite+pysqlite")
    raise BadSetting(f"the database URL is of an unsupported kind: {EXPECTED_URL}")


def _postgresql_url(url: str) -> URL:
    """Read the URL as PostgreSQL's own programs do."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        found = conninfo_to_dict("postgresql://" + url.partition("://")[2])
    except ProgrammingError as error:
        raise BadSetting(f"the database URL cannot be read: {EXPECTED_URL}") from error
    given = {name: str(value) for name, value in found.items() if value is not None}
    return URL.create(
        "postgresql+psycopg",
        username=given.pop("user", None),
        password=given.pop("password", None),
        database=given.pop("dbname", None),
        query=given,
    )


def sqlite_engines(url: URL) -> tuple[Engine, Engine]:
    options: dict[str, Any] = {
        "hide_parameters": True,
        "connect_args": {"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    }
    reader = create_engine(url, pool_size=5, max_overflow=35, **options)
    # One writer at a time is SQLite's own rule; a queue of one is fair where its lock is not.
    writer = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=60, **options)
    prepare_sqlite(reader, ["PRAGMA query_only = ON"], begin="BEGIN")
    durable = ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON"]
    # what an UPDATE would undo alone is kept in memory: in a file, it is twenty writes a check-in
    in_memory = "PRAGMA temp_store = MEMORY"
    prepare_sqlite(writer, [*durable, in_memory], begin="BEGIN IMMEDIATE")
    return reader, writer


def prepare_sqlite(engine: Engine, pragmas: list[str], *, begin: str) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        # The driver would otherwise begin by itself, late and never IMMEDIATE.
        connection.isolation_level = None
        for pragma in [f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}", *pragmas]:
            connection.execute(pragma).close()

    @event.listens_for(engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)


# A count over the fleet runs on one core: it is never what somebody waits for, and several, or a
# compiler for it, take those from polls where all runs on one machine.
SETTINGS = {"timezone": "UTC", "jit": "off", "max_parallel_workers_per_gather": "0"}
CONNECTING: dict[str, Any] = {
    "connect_timeout": 5,
    # a host that is gone without a word is noticed within 25 s, not in two hours
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
# a pooler may give the next transaction a connection on which the statement was never prepared
UNPREPARED: dict[str, Any] = {"prepare_threshold": None}


def listening_engine(url: str) -> Engine:
    """For a connection of its own, that takes none of the others' places."""
    return create_engine(
        parse_url(url), hide_parameters=True, poolclass=NullPool, connect_args=CONNECTING
    )


def migrating_engine(url: URL) -> Engine:
    """For one transaction that changes tables, also through a pooler."""
    options: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        options["connect_args"] = UNPREPARED
    return create_engine(url, hide_parameters=True, **options)


def postgresql_engines(
    url: URL, *, connections: int = 20, pooler: bool = False
) -> tuple[Engine, Engine]:
    given = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
    writer = create_engine(
        url,
        hide_parameters=True,
        # kept open: another process of PostgreSQL for each use costs more than it
        pool_size=connections,
        max_overflow=connections,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        connect_args=CONNECTING | (UNPREPARED if pooler else {"options": given}),
    )
    if pooler:
        _set_in_each_transaction(writer)
    # One snapshot for all statements of a read, as SQLite gives by nature.
    reader = writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return reader, writer


def _set_in_each_transaction(engine: Engine) -> None:
    """What is set for a connection would be another transaction's, or be lost."""
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in SETTINGS.items())

    @event.listens_for(engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(f"SELECT {calls}")

"""The database: how it is opened, how a session begins, and the one counter that orders changes.

A read session sees one moment of the database and cannot write; a write session is one
transaction, serialised on SQLite by BEGIN IMMEDIATE. Which tables exist is the slices' affair
(`tables.py`), what may be written is their services'.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    DateTime,
    Dialect,
    Integer,
    MetaData,
    String,
    Update,
    bindparam,
    case,
    column,
    func,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.types import TypeDecorator

from pilotwave_server.engines import parse_url, postgresql_engines, sqlite_engines
from pilotwave_server.errors import NotInitialised

log = logging.getLogger(__name__)

# Alembic can only drop what has a name, and SQLite gives none of its own.
NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

JsonB = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
"""A JSON column; `None` is SQL NULL. JSONB where the database has it."""

BigId = BigInteger().with_variant(Integer, "sqlite")
"""A 64-bit row number. SQLite counts up by itself only for a column that says INTEGER."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC `datetime`, whatever the database keeps; a naive one is a ValueError."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored: pass an aware datetime")
        value = value.astimezone(timezone.utc)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value.astimezone(timezone.utc)


class Base(DeclarativeBase):
    """Every table of the server."""

    metadata = MetaData(naming_convention=NAMING)


NO_FLEET = (
    "this database holds no fleet yet: run `pilotwave-server init --data FOLDER --fleet NAME` "
    "with the settings of this server"
)


REVISION_CHANNEL = "pilotwave_revision"
"""What PostgreSQL's LISTEN names to be told of each revision."""


class FleetRow(Base):
    """The one row of the fleet: its name and its revision counter."""

    __tablename__ = "fleet_state"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, default=1)
    fleet: Mapped[str] = mapped_column(String(128))
    revision: Mapped[int] = mapped_column(BigInteger, default=0)
    fleet_revision: Mapped[int] = mapped_column(BigInteger, default=0)


class SchemaRow(Base):
    """The one row that says which older code may go on with this database: that which was made for
    the schema `oldest`, or a later one (`migrate.py`)."""

    __tablename__ = "schema_state"
    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, default=1)
    oldest: Mapped[str] = mapped_column(String(64))


def fleet_row(session: Session) -> FleetRow:
    """The fleet's row, or NotInitialised."""
    row = session.get(FleetRow, 1)
    if row is None:
        raise NotInitialised(NO_FLEET)
    return row


def lock_fleet(session: Session) -> FleetRow:
    """The fleet's row, held until the transaction ends, so that one writer goes at a time."""
    row = session.get(FleetRow, 1, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotInitialised(NO_FLEET)
    return row


def next_revision(session: Session) -> int:
    """Count one up and return the new number. For a change that concerns single devices."""
    return _advance(session, revision=FleetRow.revision + 1)


def touch_fleet(session: Session) -> int:
    """Count one up for a change that may concern every device, and return the new number."""
    return _advance(session, revision=FleetRow.revision + 1, fleet_revision=FleetRow.revision + 1)


def lift_fleet(session: Session, revision: int) -> int:
    """Count on from `revision`, or by one if that is not higher, for a change that may concern
    every device; return the new number."""
    higher = case((FleetRow.revision < revision, revision), else_=FleetRow.revision + 1)
    return _advance(session, revision=higher, fleet_revision=higher)


def _advance(session: Session, **values: Any) -> int:
    counted = update(FleetRow).where(FleetRow.id == 1).values(**values)
    revision = session.execute(
        counted.returning(FleetRow.revision), execution_options={"synchronize_session": False}
    ).scalar_one_or_none()
    if revision is None:
        raise NotInitialised(NO_FLEET)
    row = session.identity_map.get(session.identity_key(FleetRow, 1))
    if row is not None:
        session.expire(row)
    session.info["revised"] = True
    if session.get_bind().dialect.name == "postgresql":
        # heard at the commit. Such commits go one at a time, and so do these, by the fleet's row.
        session.execute(select(func.pg_notify(REVISION_CHANNEL, "")))
    return revision


def upsert(
    session: Session,
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
    *,
    changing: Collection[str] | None = None,
    adding: Collection[str] = (),
    where: ColumnElement[bool] | None = None,
) -> None:
    """Insert rows, or where the primary key is there, set all other columns given: or of those the
    ones `changing`, and only `where` the row is like that. Those in `adding` are added to what is
    there. One statement; each row names the same columns."""
    if not rows:
        return
    added, columns = _insert(session, table), table.__table__.c
    keys = [column.name for column in table.__table__.primary_key]
    changed = {
        name: columns[name] + added.excluded[name] if name in adding else added.excluded[name]
        for name in (changing or rows[0])
        if name not in keys
    }
    # on the connection: many rows of parameters for one statement, which need no ORM
    session.connection().execute(
        added.on_conflict_do_update(index_elements=keys, set_=changed, where=where), rows
    )


def insert_missing(
    session: Session,
    table: type[Base],
    rows: Sequence[Mapping[str, Any]],
    *,
    unique: Sequence[str] | None = None,
) -> None:
    """Insert rows, but those that are there already: by the columns `unique`, or by any key. One
    statement; each row names the same columns."""
    if rows:
        added = _insert(session, table).on_conflict_do_nothing(index_elements=unique)
        session.connection().execute(added, rows)


def _insert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    """Return an insertion that can be told what to do where a row is there."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    made: postgresql.Insert | sqlite.Insert = dialect.insert(table.__table__)
    return made


def update_rows(session: Session, table: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Set columns of many rows, each found by its `id`; each names the same columns."""
    if not rows:
        return
    connection, columns = session.connection(), tuple(rows[0])
    if connection.dialect.name == "postgresql":
        # one statement: there each one of many costs more than what it does
        given = [
            {k: v.isoformat() if isinstance(v, datetime) else v for k, v in r.items()} for r in rows
        ]
        connection.execute(_update_from_json(table, columns), {"given": given})
    else:
        connection.execute(_update_each(table, columns), [{**r, "row": r["id"]} for r in rows])


@cache
def _update_each(table: type[Base], columns: tuple[str, ...]) -> Update:
    values: dict[str, Any] = {name: bindparam(name) for name in columns if name != "id"}
    found = table.__table__.c.id == bindparam("row")
    return update(table).where(found).values(values)


@cache
def _update_from_json(table: type[Base], columns: tuple[str, ...]) -> Update:
    known = table.__table__.c
    typed = [column(name, known[name].type) for name in columns]
    rows = func.json_to_recordset(bindparam("given", type_=JSON))
    given = rows.table_valued(*typed).render_derived(name="given", with_types=True)
    values: dict[str, Any] = {name: given.c[name] for name in columns if name != "id"}
    return update(table).where(known.id == given.c.id).values(values)


def after_commit(session: Session, callback: Callable[[], object]) -> None:
    """Call `callback` once the transaction of this `Database.write()` is committed, if it is."""
    session.info.setdefault("after_commit", []).append(callback)


@contextmanager
def in_transaction(session: Session) -> Iterator[Session]:
    """Commit (a write session) and close when the block ends well, roll back when it does not."""
    with session:
        with session.begin():
            yield session
        callbacks = session.info.get("after_commit", [])
        if session.info.get("revised"):
            callbacks = [*session.info["on_revision"], *callbacks]
    for callback in callbacks:
        try:
            callback()
        except Exception:
            # The change is committed and stays; what follows from it is caught up with later.
            log.exception("work after a commit failed")


class Database:
    """One database, opened by URL. Safe to share between threads; sessions are not.

    `on_revision` callables run after each commit of this process that moved the counter. Of
    PostgreSQL so many `connections` are kept; a `pooler` gives another one to each transaction.
    """

    def __init__(self, url: str, *, connections: int = 20, pooler: bool = False) -> None:
        self.url = parse_url(url)
        self.on_revision: list[Callable[[], object]] = []
        if self.url.get_backend_name() == "sqlite":
            self.reader, self.writer = sqlite_engines(self.url)
        else:
            self.reader, self.writer = postgresql_engines(
                self.url, connections=connections, pooler=pooler
            )

    @property
    def is_sqlite(self) -> bool:
        return self.writer.dialect.name == "sqlite"

    def read_session(self) -> Session:
        """A session for `in_transaction`: it sees one moment of the database, refuses to write."""
        return Session(self.reader, autoflush=False, expire_on_commit=False)

    def write_session(self) -> Session:
        """A session for `in_transaction`. It is a transaction from its first statement on."""
        info = {"on_revision": self.on_revision}
        return Session(self.writer, expire_on_commit=False, info=info)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one moment of the database and refuses to write."""
        with in_transaction(self.read_session()) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits when the block ends well and rolls back when it does not.

        The transaction begins with the first statement, not with the block.
        """
        with in_transaction(self.write_session()) as session:
            yield session

    def close(self) -> None:
        self.reader.dispose()
        self.writer.dispose()

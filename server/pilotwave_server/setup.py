"""Setting a server up, and finding out before it starts why it would not run.

Every failure is a SetupError whose sentence says what to do; the command line prints it and ends
with status 2.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from pilotwave_protocol.names import check_fleet
from pilotwave_server import certificate, migrate
from pilotwave_server.audit.service import record
from pilotwave_server.blobs.choose import open_store
from pilotwave_server.db import Database, FleetRow, fleet_row
from pilotwave_server.engines import parse_url
from pilotwave_server.errors import BadSetting, NotInitialised, SetupError
from pilotwave_server.hosts.heartbeat import check_blobs_shared
from pilotwave_server.keystore.choose import check_place, open_keys
from pilotwave_server.keystore.port import KeyStore
from pilotwave_server.operators import people
from pilotwave_server.operators import service as operators
from pilotwave_server.operators.roles import Role
from pilotwave_server.operators.tables import OperatorTokenRow, PersonRow
from pilotwave_server.registry.keys import ensure_server_keys
from pilotwave_server.registry.own_keys import (
    check_own_keys,
    expect_rotation,
    missing_keys,
    rotation_is_over,
)
from pilotwave_server.settings import Settings, check_settings

FIRST_TOKEN = "admin"
FIRST_PERSON = "admin"


class DataFolderUnusable(SetupError):
    code = "data_folder_unusable"


class DatabaseUnusable(SetupError):
    code = "database_unusable"


class OtherFleet(SetupError):
    code = "other_fleet"


class TokenFileUnusable(SetupError):
    code = "token_file_unusable"


@dataclass(frozen=True)
class Initialised:
    """What `initialise` found or made. Token and link of the first admin are there the first time
    only; the link is a path on the server."""

    fleet: str
    data_dir: Path
    admin_token: str | None = field(repr=False)
    login_link: str | None = field(default=None, repr=False)


def initialise(
    settings: Settings,
    *,
    fleet: str,
    now: datetime,
    token_file: Path | None = None,
    new_keys: bool = False,
) -> Initialised:
    """Make data folder, keys, tables, fleet and first admin token; what is there already stays.

    Beside a database whose fleet trusts other keys none are made, unless `new_keys` says so.
    """
    check_fleet(fleet)
    require_writable(settings.data_dir, make=True)
    with database_errors(settings):
        migrate.upgrade(settings.resolved_database_url)
        db = Database(settings.resolved_database_url, **settings.database_options)
        try:
            with db.write() as session:
                keys = open_keys(settings, db)
                _check_keys(session, keys, settings, new_keys=new_keys)
                ensure_server_keys(keys, session)
                if new_keys:
                    expect_rotation(keys, session)
                token = _make_fleet(session, fleet=fleet, now=now)
                link = _make_first_person(session, now=now)
                # Before the commit: a token that could not be handed over must not exist.
                if token is not None and token_file is not None:
                    write_secret(token_file, token)
        finally:
            db.close()
    return Initialised(fleet, settings.data_dir, token, link)


def _check_keys(session: Session, keys: KeyStore, settings: Settings, *, new_keys: bool) -> None:
    """Refuse to make keys where this fleet has some elsewhere."""
    check_place(session, keys, settings)
    if new_keys:
        return
    check_own_keys(session, keys)
    if session.get(FleetRow, 1) is not None and missing_keys(keys, session):
        raise NotInitialised(
            f"this fleet is set up, and its server keys are not in {keys.where}: put them there "
            "from the server that has them, or have its hosts share them in the database "
            "(`pilotwave-server keys move`, docs/hosts.md). Where they are lost for good: "
            "`pilotwave-server init --new-keys --fleet NAME`"
        )


def _make_fleet(session: Session, *, fleet: str, now: datetime) -> str | None:
    found = session.get(FleetRow, 1, with_for_update=True)
    if found is not None and found.fleet != fleet:
        raise OtherFleet(
            f"this database holds the fleet {found.fleet}, not {fleet}: "
            "choose another --data folder (or database) for a second fleet"
        )
    if found is None:
        session.add(FleetRow(fleet=fleet))
        record(session, actor="server", verb="fleet.create", object=f"fleet/{fleet}", now=now)
    if session.scalar(select(func.count()).select_from(OperatorTokenRow)):
        return None
    issued = operators.issue(session, name=FIRST_TOKEN, role=Role.ADMIN, actor="server", now=now)
    return issued.plaintext


def _make_first_person(session: Session, *, now: datetime) -> str | None:
    if session.scalar(select(func.count()).select_from(PersonRow)):
        return None
    row = people.create_person(session, name=FIRST_PERSON, role=Role.ADMIN, actor="server", now=now)
    return login_path(people.make_link(session, row, actor="server", now=now))


def login_path(link: people.LoginLink) -> str:
    """Where on the server a link lets its person in."""
    return f"/login/link/{link.plaintext}"


def preflight(settings: Settings) -> str:
    """The fleet's name when a server can run on these settings; SetupError with the reason if not.

    Checked in order: settings, data folder, database, schema, fleet, keys.
    """
    check_settings(settings)
    certificate.check(settings)
    if not settings.data_dir.is_dir():
        raise NotInitialised(
            f"the data folder {settings.data_dir} does not exist: "
            f"run `pilotwave-server init --data {settings.data_dir} --fleet NAME`"
        )
    require_writable(settings.data_dir)
    with open_database(settings) as db:
        keys = open_keys(settings, db)
        with db.read() as session:
            migrate.require_usable(session)
            fleet = fleet_row(session).fleet
            check_place(session, keys, settings)
            awaited = check_own_keys(session, keys)
            if missing := missing_keys(keys, session):
                raise NotInitialised(
                    f"there is no {missing[0]} key in {keys.where}: restore it from your backup, "
                    "or, if this server is new, run `pilotwave-server init --data "
                    f"{settings.data_dir} --fleet NAME`"
                )
        if not awaited:
            rotation_is_over(keys)
    return fleet


def check_store(settings: Settings) -> str:
    """The name of the blob store, if it can be read and written, and the hosts that run share it.
    StoreBroken, BlobsApart."""
    with open_database(settings) as db:
        store = open_store(settings, db)
        store.check(write=True)
        if not db.is_sqlite:
            with db.read() as session:
                check_blobs_shared(session, store=store.name, identity=store.identity())
        return store.name


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The database of these settings, which has to be there; SetupError if it is not."""
    url = parse_url(settings.resolved_database_url)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        raise NotInitialised(
            f"there is no database at {url.database}: "
            f"run `pilotwave-server init --data {settings.data_dir} --fleet NAME`"
        )
    with database_errors(settings):
        db = Database(settings.resolved_database_url, **settings.database_options)
        try:
            yield db
        finally:
            db.close()


@contextmanager
def database_errors(settings: Settings) -> Iterator[None]:
    """Say in a sentence what the database's driver says in many."""
    try:
        yield
    except DBAPIError as error:
        url = parse_url(settings.resolved_database_url)
        said = " ".join(str(error.orig).split())[:300]
        if url.get_backend_name() == "sqlite":
            raise DatabaseUnusable(f"the database {url.database} cannot be used: {said}") from error
        where = f"{url.host or url.query.get('host') or 'the default socket'}"
        raise DatabaseUnusable(
            f"PostgreSQL at {where} cannot be used: {said}; "
            "check that it runs and that PILOTWAVE_DATABASE_URL is right"
        ) from error


def check_token_name(name: str) -> None:
    """BadSetting unless the API, too, would take this name for a token."""
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise BadSetting(f"--name: expected 1 to 64 printable characters; got {name!r}")


def require_writable(folder: Path, *, make: bool = False) -> None:
    """DataFolderUnusable unless a file can be made in `folder`."""
    try:
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable-"):
            pass
    except OSError as error:
        raise DataFolderUnusable(
            f"the data folder {folder} cannot be written ({error.strerror}): "
            "give this user the right to write there, or choose another with --data"
        ) from error


def write_secret(path: Path, secret: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secret + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise TokenFileUnusable(
            f"the token file {path} cannot be written ({error.strerror})"
        ) from error

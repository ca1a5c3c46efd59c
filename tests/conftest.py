"""Fixtures for the server's tests: a database of each kind, and a real server on a free port.

A test that takes `database_url` (or anything made from it) runs once on SQLite and once on
PostgreSQL; with `--databases one` on one of them, by turns. PILOTWAVE_TEST_DATABASE_URL names a
PostgreSQL to use instead of starting one; databases are made and dropped there, so its user needs
CREATEDB.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from starlette.types import ASGIApp

from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.operators import service as operators
from pilotwave_server.operators.roles import Role
from pilotwave_server.settings import Settings
from tests import buckets, by_turns, certificates, databases, postgres, runtimes
from tests.buckets import Bucket, S3Server
from tests.order import is_long, long_first
from tests.servers import RunningServer, ServerProcess, run_in_thread

POSTGRES_URL = os.environ.get("PILOTWAVE_TEST_DATABASE_URL", "")
POSTGRES_BINARIES = postgres.find_binaries()
KINDS = ["sqlite"] + ["postgresql"] * bool(POSTGRES_URL or POSTGRES_BINARIES)
# how fast a machine makes up examples says nothing about what is tested
hypothesis_settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("any machine")
certificates.trust_no_public_authority()
START = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)


def pytest_report_header() -> list[str]:
    where = "the one given" if POSTGRES_URL else POSTGRES_BINARIES
    found = f"postgresql: {where or 'none found, so its half of the tests is left out'}"
    return [found, *runtimes.summary()]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--databases",
        choices=["one", "both"],
        default="both",
        help="run each test of a database on both kinds, or on one of them, by turns",
    )


@pytest.hookimpl(trylast=True)  # when -m and -k have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    runtimes.deselect(config, items)
    if config.getoption("databases") == "one":
        left_out = by_turns.others(items)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    worker = getattr(config, "workerinput", None)
    if worker is not None:  # pytest-xdist's
        workers = int(worker["workercount"])
        module = lambda item: item.nodeid.partition("::")[0]  # noqa: E731
        items[:] = long_first(items, workers, module=module, long=is_long)


class FakeClock:
    """A clock that stands still until told otherwise. Call it for the time."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> datetime:
        self.now += timedelta(**by)
        return self.now


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server, as the URL of a database that may be connected to."""
    if POSTGRES_URL:
        yield POSTGRES_URL
        return
    assert POSTGRES_BINARIES is not None
    with postgres.running_server(POSTGRES_BINARIES) as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return databases.make_sqlite_template(tmp_path_factory.mktemp("template") / "template.db")


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    with databases.postgres_template(postgres_url) as name:
        yield name


@pytest.fixture(params=KINDS)
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """A new database without any table."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    with databases.fresh_postgres(request.getfixturevalue("postgres_url")) as url:
        yield url


@contextlib.contextmanager
def new_database(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The URL of a new database with every table and a fleet called `test-fleet`."""
    if kind == "sqlite":
        template = request.getfixturevalue("sqlite_template")
        yield f"sqlite:///{shutil.copy(template, folder / 'pilotwave.db')}"
        return
    server = request.getfixturevalue("postgres_url")
    template = request.getfixturevalue("postgres_template")
    with databases.fresh_postgres(server, template=template) as url:
        yield url


@pytest.fixture
def database_url(
    database_kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[str]:
    """A new database with every table and a fleet called `test-fleet`."""
    with new_database(database_kind, request, tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    with buckets.running_moto() as server:
        yield server


@pytest.fixture(scope="session")
def radosgw() -> Iterator[S3Server]:
    with buckets.running_ceph() as server:
        yield server


@pytest.fixture(params=["moto", pytest.param("radosgw", marks=pytest.mark.needs("radosgw"))])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A new bucket, with what a server needs to use it in this process's environment."""
    server: S3Server = request.getfixturevalue(request.param)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.bucket()


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Settings of a server with its data folder set up."""
    return databases.prepare_data_dir(
        Settings(data_dir=tmp_path, database_url=database_url, delta_processes=0)
    )


@pytest.fixture
def app(settings: Settings, clock: FakeClock) -> ASGIApp:
    """The whole server as ASGI, not started. Its clock is `clock`."""
    from pilotwave_server.app import create_app

    return create_app(settings, clock=clock)


@pytest.fixture
def server(app: Any) -> Iterator[RunningServer]:
    """The whole server behind a real uvicorn on a free port of 127.0.0.1."""
    with run_in_thread(app) as running:
        yield running


@pytest.fixture
def context(server: RunningServer) -> Context:
    """The state shared inside `server`."""
    return server.context


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    """A client of `server` that sends no token."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


MakeToken = Callable[..., str]


def issue_token(
    db: Database, role: Role, *, now: datetime, name: str = "", expires_at: datetime | None = None
) -> str:
    with db.write() as session:
        issued = operators.issue(
            session,
            name=name or f"test-{role.value}",
            role=role,
            actor="server",
            now=now,
            expires_at=expires_at,
        )
    return issued.plaintext


@pytest.fixture
def make_token(db: Database, clock: FakeClock) -> MakeToken:
    """`make_token(Role.VIEWER, name=…, expires_at=…)` makes a token and returns its plaintext."""

    def make(role: Role, **given: Any) -> str:
        return issue_token(db, role, now=clock(), **given)

    return make


@pytest.fixture
def admin_token(make_token: MakeToken) -> str:
    return make_token(Role.ADMIN)


@pytest.fixture
def operator_token(make_token: MakeToken) -> str:
    return make_token(Role.OPERATOR)


@pytest.fixture
def publisher_token(make_token: MakeToken) -> str:
    return make_token(Role.PUBLISHER)


@pytest.fixture
def viewer_token(make_token: MakeToken) -> str:
    return make_token(Role.VIEWER)


def token_client(server: RunningServer, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=30)


@pytest.fixture
def admin(server: RunningServer, admin_token: str) -> Iterator[httpx.Client]:
    """A client of `server` with an admin token."""
    with token_client(server, admin_token) as client:
        yield client


@pytest.fixture
def operator(server: RunningServer, operator_token: str) -> Iterator[httpx.Client]:
    """A client of `server` with an operator token."""
    with token_client(server, operator_token) as client:
        yield client


@pytest.fixture
def publisher(server: RunningServer, publisher_token: str) -> Iterator[httpx.Client]:
    """A client of `server` with a publisher token."""
    with token_client(server, publisher_token) as client:
        yield client


@pytest.fixture
def viewer(server: RunningServer, viewer_token: str) -> Iterator[httpx.Client]:
    """A client of `server` with a viewer token."""
    with token_client(server, viewer_token) as client:
        yield client


ServerFactory = Callable[..., ServerProcess]


@pytest.fixture
def server_factory(tmp_path: Path) -> Iterator[ServerFactory]:
    """`server_factory(data=DIR, fleet=…)` initialises and runs the real `pilotwave-server` program.

    Returns a ServerProcess (`url`, `admin_token`, `stop()`, `kill()`, `start()` again). Further
    keywords are settings: `poll_interval_s=1`.
    """
    started: list[ServerProcess] = []

    def start(
        data: Path | None = None, *, fleet: str = "test-fleet", **given: Any
    ) -> ServerProcess:
        process = ServerProcess(data or tmp_path / "server", settings=given)
        started.append(process)
        process.init(fleet)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()

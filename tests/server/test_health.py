"""Health: said within seconds, whatever the database does."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from pilotwave_server.app import create_app
from pilotwave_server.health import PATIENCE_S
from pilotwave_server.settings import Settings
from tests import databases, postgres
from tests.conftest import POSTGRES_BINARIES
from tests.servers import RunningServer, run_in_thread

pytestmark = pytest.mark.needs("postgresql")
SETTLED_S = PATIENCE_S + 3


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A PostgreSQL of this test's own."""
    assert POSTGRES_BINARIES is not None
    with postgres.running_server(POSTGRES_BINARIES) as url:
        databases.fill(url)
        yield url


@pytest.fixture
def server(postgresql: str, tmp_path: Path) -> Iterator[RunningServer]:
    settings = Settings(data_dir=tmp_path, database_url=postgresql, delta_processes=0)
    with run_in_thread(create_app(databases.prepare_data_dir(settings))) as running:
        yield running


@pytest.fixture
def hanging(postgresql: str, server: RunningServer) -> Iterator[list[int]]:
    """The database's processes, which stand still until somebody has them go on."""
    assert httpx.get(f"{server.url}/readyz", timeout=30).json()["status"] == "ok"
    processes = postgres.processes_of(postgresql)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    yield processes
    wake(processes)


def wake(processes: list[int]) -> None:
    for process in processes:
        os.kill(process, signal.SIGCONT)


def test_a_database_that_hangs_is_said_within_seconds_to_everybody(
    server: RunningServer, hanging: list[int]
) -> None:
    def ask(path: str) -> tuple[int, float, str]:
        began = time.monotonic()
        answer = httpx.get(f"{server.url}{path}", timeout=30)
        return answer.status_code, time.monotonic() - began, answer.json().get("code", "")

    # more than there are threads and connections, one after the other and at once
    with ThreadPoolExecutor(30) as asking:
        answers = list(asking.map(ask, ["/healthz", "/readyz"] * 45))
    assert {status for status, _, _ in answers} == {503}
    assert max(took for _, took, _ in answers) < SETTLED_S
    assert {code for _, _, code in answers} == {"database_unavailable"}
    alive, took, _ = ask("/livez")
    assert (alive, took < 2) == (200, True)
    wake(hanging)
    deadline = time.monotonic() + 20
    while ask("/readyz")[0] != 200:
        assert time.monotonic() < deadline


def test_every_host_of_the_url_is_tried(postgresql: str, tmp_path: Path) -> None:
    folder = postgresql.partition("host=")[2].replace("/", "%2F")
    nobody = str(tmp_path).replace("/", "%2F")
    url = f"postgresql://postgres@{nobody}:5432,{folder}:5432/postgres"
    settings = Settings(data_dir=tmp_path, database_url=url, delta_processes=0)
    with run_in_thread(create_app(databases.prepare_data_dir(settings))) as running:
        assert httpx.get(f"{running.url}/healthz", timeout=30).json()["status"] == "ok"


@pytest.mark.parametrize("minutes", [10, -10])
def test_a_host_whose_clock_differs_is_not_ready(
    postgresql: str, server: RunningServer, minutes: int
) -> None:
    """The database's clock is set by a function that stands before its own."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
            f"$$ SELECT pg_catalog.clock_timestamp() + interval '{minutes} minutes' $$"
        )
        connection.execute("ALTER DATABASE postgres SET search_path = public, pg_catalog")
    server.context.db.close()  # what it opens from now on knows it
    answer = httpx.get(f"{server.url}/readyz", timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (503, "clock_differs")
    assert ("behind" if minutes > 0 else "ahead of") in answer.json()["detail"]

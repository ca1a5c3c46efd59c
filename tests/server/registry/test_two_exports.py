"""A host whose export lags behind another's gives out nothing older than what the other did."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotwave_server.app import PilotwaveApp, create_app
from pilotwave_server.db import Database
from pilotwave_server.settings import Settings
from tests import databases, postgres
from tests.conftest import POSTGRES_BINARIES, FakeClock
from tests.server.registry.registry import Registry

pytestmark = pytest.mark.needs("postgresql")


@pytest.fixture
def postgresql() -> Iterator[str]:
    """A PostgreSQL of this test's own."""
    assert POSTGRES_BINARIES is not None
    with postgres.running_server(POSTGRES_BINARIES) as url:
        databases.fill(url)
        yield url


@pytest.fixture
def other(postgresql: str, tmp_path: Path, clock: FakeClock) -> Iterator[Registry]:
    """The host that publishes."""
    db = Database(postgresql)
    yield Registry(db, tmp_path / "other", clock).bootstrap().create_model("detector")
    db.close()


@pytest.fixture
def lagging(other: Registry, postgresql: str, tmp_path: Path, clock: FakeClock) -> PilotwaveApp:
    """A host that does not look at the database by itself: none of its background work runs."""
    settings = Settings(data_dir=tmp_path / "lagging", database_url=postgresql, delta_processes=0)
    return create_app(databases.prepare_data_dir(settings), clock=clock)


def ask(app: PilotwaveApp, *paths: str) -> list[httpx.Response]:
    async def all_at_once() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://lagging") as client:
            return await asyncio.gather(*(client.get(f"/tuf/{path}") for path in paths))

    return asyncio.run(all_at_once())


def version(answer: httpx.Response) -> Any:
    return answer.json()["signed"]["version"]


def test_what_the_other_published_is_there_at_once(lagging: PilotwaveApp, other: Registry) -> None:
    for number in range(3):
        other.publish("detector", f"1.{number}.0")
        newest = other.trust.versions
        assert version(*ask(lagging, "metadata/timestamp.json")) == newest.timestamp
        [snapshot] = ask(lagging, f"metadata/{newest.snapshot}.snapshot.json")
        assert version(snapshot) == newest.snapshot


def test_a_missing_file_is_looked_for_in_the_database(
    lagging: PilotwaveApp, other: Registry
) -> None:
    other.publish("detector", "1.0.0")
    [manifest] = (other.data_dir / "tuf/targets").rglob("*.json")
    path = manifest.relative_to(other.data_dir / "tuf")
    snapshot = other.trust.versions.snapshot
    found = ask(lagging, str(path), f"metadata/{snapshot}.snapshot.json", "metadata/1.root.json")
    assert [answer.status_code for answer in found] == [200] * 3
    assert found[0].content == manifest.read_bytes()
    assert [a.status_code for a in ask(lagging, *["metadata/2.root.json"] * 50)] == [404] * 50


def test_while_the_database_hangs_what_is_on_disk_is_given_out(
    lagging: PilotwaveApp, other: Registry, postgresql: str
) -> None:
    assert ask(lagging, "metadata/timestamp.json")[0].status_code == 200
    processes = postgres.processes_of(postgresql)
    for process in processes:
        os.kill(process, signal.SIGSTOP)

    async def meanwhile() -> list[httpx.Response]:
        transport = httpx.ASGITransport(lagging)
        async with httpx.AsyncClient(transport=transport, base_url="http://lagging") as client:
            asked = (client.get("/tuf/metadata/timestamp.json") for _ in range(60))
            try:
                return await asyncio.wait_for(asyncio.gather(*asked), 10)
            finally:
                # the loop's end waits for its threads
                for process in processes:
                    os.kill(process, signal.SIGCONT)

    assert {answer.status_code for answer in asyncio.run(meanwhile())} == {200}

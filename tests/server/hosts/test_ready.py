"""Hosts that do not fit together say so: blobs that they do not share, keys that devices do not
trust."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from pilotwave_server.app import create_app
from pilotwave_server.db import Database
from pilotwave_server.hosts.heartbeat import Heartbeat
from pilotwave_server.hosts.living import BlobsApart
from pilotwave_server.settings import Settings
from pilotwave_server.setup import check_store
from tests.buckets import Bucket
from tests.conftest import FakeClock
from tests.databases import prepare_data_dir
from tests.server.registry.registry import Registry
from tests.servers import RunningServer, run_in_thread

pytestmark = [
    pytest.mark.needs("postgresql"),
    pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True),
]
Host = Callable[..., Settings]


@pytest.fixture
def host(database_url: str, tmp_path: Path) -> Host:
    """Make a host with a data folder of its own."""

    def make(name: str, **given: object) -> Settings:
        folder = tmp_path / name
        folder.mkdir()
        values = {"database_url": database_url, "delta_processes": 0, **given}
        return prepare_data_dir(Settings.model_validate({"data_dir": folder, **values}))

    return make


@contextlib.contextmanager
def running(*all: Settings) -> Iterator[list[RunningServer]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(run_in_thread(create_app(one))) for one in all]


def ready(server: RunningServer) -> tuple[int, str]:
    answer = httpx.get(f"{server.url}/readyz", timeout=30)
    return answer.status_code, answer.json().get("code", "")


def have_met(servers: list[RunningServer]) -> None:
    """Wait until each has looked at its store, and has told the others."""
    beats = [server.context.get(Heartbeat) for server in servers]
    end = time.monotonic() + 20
    while not all(beat.blob_store for beat in beats):
        assert time.monotonic() < end
        time.sleep(0.05)
    for _ in range(2):
        for beat in beats:
            beat.beat()


def test_a_host_that_shares_no_blobs_with_those_that_run_does_not_start(host: Host) -> None:
    second = host("b")
    with running(host("a")) as servers:
        have_met(servers)
        with pytest.raises(BlobsApart) as refused:
            check_store(second)
    assert str(second.blobs_dir) in str(refused.value)
    assert "PILOTWAVE_BLOBS" in str(refused.value)
    check_store(second)  # alone it may: blobs were moved there while nobody ran


def test_of_hosts_that_start_at_once_and_share_no_blobs_one_is_ready(host: Host) -> None:
    with running(host("a"), host("b")) as servers:
        have_met(servers)
        assert sorted(map(ready, servers)) == [(200, ""), (503, "blobs_apart")]
        good, bad = sorted(servers, key=ready)
        good.app.close()
        good.context.get(Heartbeat).stop()
        bad.context.get(Heartbeat).beat()
        assert ready(bad) == (200, "")


@pytest.mark.parametrize("how", ["one mounted folder", "one bucket"])
def test_hosts_that_share_blobs_are_ready(host: Host, how: str, bucket: Bucket) -> None:
    if how == "one bucket":
        first, second = (host(name, blobs=bucket.url) for name in "ab")
    else:
        first, second = host("a"), host("b")
        first.blobs_dir.mkdir()
        second.blobs_dir.symlink_to(first.blobs_dir)
    with running(first) as servers:
        have_met(servers)
        check_store(second)
    with running(first, second) as servers:
        have_met(servers)
        assert [ready(server) for server in servers] == [(200, ""), (200, "")]


def test_a_host_without_the_keys_that_devices_trust_is_not_ready(
    host: Host, db: Database, clock: FakeClock
) -> None:
    """A fleet's keys in folders: one host got them, the other made its own."""
    first, second = host("a"), host("b")
    second.blobs_dir.symlink_to(first.blobs_dir)
    first.blobs_dir.mkdir(exist_ok=True)
    with running(first, second) as servers:
        assert [ready(server) for server in servers] == [(200, ""), (200, "")]
        Registry(db, first.data_dir, clock).bootstrap()
        assert [ready(server) for server in servers] == [(200, ""), (503, "other_keys")]
        for key in first.keys_dir.iterdir():
            shutil.copy(key, second.keys_dir / key.name)
        assert [ready(server) for server in servers] == [(200, ""), (200, "")]

"""Real server processes, killed again and again while blobs are uploaded and versions published."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from pilotwave_protocol import names, signing
from pilotwave_protocol.digest import hash_file, sha256_hex
from pilotwave_server.db import Database
from pilotwave_server.operators import service as operators
from pilotwave_server.operators.roles import Role
from pilotwave_server.registry.checks import VersionClash
from pilotwave_server.registry.entries import CounterNotRising
from pilotwave_server.settings import Settings
from tests.server.killed import KilledServer, killed_server
from tests.server.registry.offline import manifest_for
from tests.server.registry.registry import Registry, onnx
from tests.server.registry.test_http import Remote, b64

pytestmark = pytest.mark.long

KILLS = 24
PIECE = 200_000


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


class HttpFetcher(FetcherInterface):
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def _fetch(self, url: str) -> Iterator[bytes]:
        answer = self._client.get(url)
        if answer.status_code != 200:
            raise DownloadHTTPError(url, answer.status_code)
        return iter([answer.content])


@dataclass
class Work:
    """Uploads and publishes, and remembers what the server acknowledged."""

    server: KilledServer
    remote: Remote
    rng: random.Random
    blobs: dict[str, bytes] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)

    def release(self, version: str) -> None:
        """One version: a blob in pieces, then the metadata. Goes on wherever it stands."""
        data = onnx(version, weights=random.Random(version).randbytes(3 * PIECE))
        self._upload(data)
        role = self.remote.fetch("models-detector")
        if names.target_path("detector", version) in role.signed.targets:
            self.versions.append(version)
            return
        counter = signing.next_counter(role.signed)
        manifest = manifest_for("detector", version, counter, {"model.onnx": data})
        signed = signing.sign(
            self.remote.offline.with_version(role, manifest),
            [self.remote.offline.publishers["detector"]],
        )
        body = {"role": signed.to_dict(), "manifest": b64(manifest.to_bytes())}
        answer = self.remote.publisher.post("/api/v1/models/detector/metadata", json=body)
        assert answer.status_code in (200, 201), answer.text
        self.versions.append(version)

    def _upload(self, data: bytes) -> None:
        sha256 = sha256_hex(data)
        url = f"/api/v1/blobs/{sha256}/upload"
        state = self.remote.publisher.get(url).json()
        while not state["complete"]:
            start = state["offset"]
            headers = {"Upload-Offset": str(start), "Upload-Length": str(len(data))}
            piece = data[start : start + PIECE]
            answer = self.remote.publisher.patch(url, content=piece, headers=headers)
            assert answer.status_code == 200, answer.text
            state = answer.json()
            assert state["offset"] >= start
        self.blobs[sha256] = data

    def check(self, device: Path, root: bytes) -> None:
        """Everything acknowledged is there, and nothing is half there."""
        for sha256, data in self.blobs.items():
            assert self.remote.publisher.get(f"/blobs/{sha256}").content == data
        for path in (self.server.data_dir / "blobs").glob("??/*"):
            assert hash_file(path)[0] == path.name
        fetcher = HttpFetcher(self.remote.admin)
        url = f"{self.server.url}/tuf/metadata/"
        updater = Updater(str(device), url, fetcher=fetcher, bootstrap=root)
        updater.refresh()
        for version in self.versions:
            found = updater.get_targetinfo(names.target_path("detector", version))
            assert found is not None, version
            url = f"/tuf/targets/models/detector/{found.hashes['sha256']}.{version}.json"
            assert len(self.remote.publisher.get(url).content) == found.length
        listed = self.remote.publisher.get("/api/v1/models/detector/versions?limit=500").json()
        counters = [item["counter"] for item in listed["items"]]
        assert counters == list(range(len(counters), 0, -1))
        assert {item["version"] for item in listed["items"]} >= set(self.versions)


@pytest.fixture
def work(settings: Settings, db: Database) -> Iterator[Work]:
    with db.write() as session:
        token = operators.issue(
            session, name="root", role=Role.ADMIN, actor="server", now=utc_now()
        ).plaintext
    headers = {"Authorization": f"Bearer {token}"}
    with (
        killed_server(settings) as server,
        httpx.Client(base_url=server.url, headers=headers, timeout=60) as client,
    ):
        remote = Remote(client, client, utc_now)
        assert remote.bootstrap().status_code == 201
        assert remote.create_model("detector").status_code == 201
        yield Work(server, remote, random.Random(20260131))


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(work: Work, tmp_path: Path) -> None:
    root = work.remote.admin.get("/tuf/metadata/1.root.json").content
    device = tmp_path / "device"
    device.mkdir()
    started = time.monotonic()
    work.release("1.0.0")
    usual = time.monotonic() - started
    for number in range(1, KILLS + 1):
        version = f"1.{number}.0"

        def release(version: str = version) -> None:
            with contextlib.suppress(httpx.TransportError):
                work.release(version)

        thread = threading.Thread(target=release)
        thread.start()
        time.sleep(work.rng.uniform(0, usual))
        work.server.kill()
        thread.join()
        work.server.start()
        work.check(device, root)
        if number % 3 == 0:
            work.release(version)
    work.release("2.0.0")
    work.check(device, root)


def _publish(url: str, data_dir: str, keys: Any, number: int, results: Any) -> None:
    """Publish from a process of its own, as a second server would."""
    db = Database(url)
    registry = Registry(db, Path(data_dir), utc_now)
    registry.offline.publishers["detector"] = signing.load_signer(keys)  # type: ignore[assignment]  # a file's signer
    for attempt in range(4):
        try:
            done = registry.publish("detector", f"{number}.{attempt}.0")
            results.put((done.role_version, None))
        except VersionClash as clash:
            results.put((None, clash.extra["current"]))
        except CounterNotRising:  # the other one published between two looks at the role
            results.put((None, None))
    db.close()


def test_servers_in_several_processes_publish_one_after_the_other(
    database_url: str, tmp_path: Path
) -> None:
    db = Database(database_url)
    data_dir = tmp_path / "data"
    registry = Registry(db, data_dir, utc_now).bootstrap()
    key = tmp_path / "publisher.pem"
    registry.offline.publishers["detector"] = signing.generate_key(key)
    registry.create_model("detector")
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    processes = [
        spawn.Process(target=_publish, args=(database_url, str(data_dir), key, n, results))
        for n in (1, 2)
    ]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=60) for _ in range(8)]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    won = sorted(version for version, _ in outcomes if version is not None)
    assert won == list(range(2, 2 + len(won)))
    assert registry.trust.refresh()
    assert registry.trust.versions.snapshot == 2 + len(won)
    device = registry.device(tmp_path / "device")
    assert device.refresh().get_targetinfo("models/detector/_policy") is not None
    files = os.listdir(data_dir / "tuf/metadata")
    assert not [name for name in files if name.endswith(".new")]
    db.close()

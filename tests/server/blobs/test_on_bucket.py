"""A server whose blobs are in a bucket: what its slices do with them, and what two hosts share."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.direct import MOST
from pilotwave_protocol.messages.check_in import DeviceEvent
from pilotwave_server.app import create_app
from pilotwave_server.blobs.choose import open_store
from pilotwave_server.blobs.filesystem import FileBlobs
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.blobs.watch import StoreWatch
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.deltas.worker import DeltaWorker
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.errors import BadSetting
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.registry.contents import FormatMismatch, PrivateKeyFound
from pilotwave_server.retention.remove import collect, purge
from pilotwave_server.settings import Settings
from tests import databases, programs
from tests.buckets import Bucket
from tests.conftest import START, FakeClock, token_client
from tests.deltas.pairs import applied, tuned, weights
from tests.peers.proxy import Fault, Proxy
from tests.server.device_api.peer import report
from tests.server.fleet_fixtures import Fleet, fleet, publish_all
from tests.server.registry.registry import Registry, onnx
from tests.servers import RunningServer, run_in_thread

__all__ = ["fleet"]
pytestmark = [
    pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True),
    pytest.mark.parametrize("bucket", ["moto"], indirect=True),
]
DATA = os.urandom(3_000_000)
SHA256 = sha256_hex(DATA)
OLD = onnx("old", weights=weights(60_000, 1, "float16").tobytes())
NEW = onnx("new", weights=tuned(weights(60_000, 1, "float16"), 2, 1e-4).tobytes())
OLD_SHA, NEW_SHA = sha256_hex(OLD), sha256_hex(NEW)


@pytest.fixture
def line(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The line between the servers and the bucket."""
    proxy = Proxy(int(bucket.server.url.rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()


@pytest.fixture
def settings(database_url: str, tmp_path: Path, bucket: Bucket, line: Proxy) -> Settings:
    return databases.prepare_data_dir(
        Settings(
            data_dir=tmp_path,
            database_url=database_url,
            delta_processes=0,
            blobs=bucket.url,
            metrics_open=True,
        )
    )


@pytest.fixture
def published(db: Database, settings: Settings, clock: FakeClock) -> Registry:
    store = open_store(settings, db, clock=clock)
    return publish_all(Registry(db, settings.data_dir, clock, blobs=store))


@pytest.fixture
def other_host(settings: Settings, clock: FakeClock) -> Iterator[RunningServer]:
    with run_in_thread(create_app(settings, clock=clock)) as running:
        yield running


def patch(client: httpx.Client, data: bytes, *, offset: int = 0) -> httpx.Response:
    return client.patch(
        f"/api/v1/blobs/{SHA256}/upload",
        content=data,
        headers={"Upload-Offset": str(offset), "Upload-Length": str(len(DATA))},
    )


def test_an_upload_goes_on_at_another_host_and_is_read_at_both(
    publisher: httpx.Client, publisher_token: str, other_host: RunningServer, bucket: Bucket
) -> None:
    with token_client(other_host, publisher_token) as other:
        answer = patch(publisher, DATA[:1_000_000])
        assert answer.json() == {"offset": 1_000_000, "complete": False}
        wanted = {"blobs": [{"sha256": SHA256, "size": len(DATA)}]}
        asked = other.post("/api/v1/blobs/missing", json=wanted)
        assert asked.json() == {"missing": [{"sha256": SHA256, "offset": 1_000_000}]}
        wrong = patch(other, DATA)
        assert (wrong.status_code, wrong.json()["offset"]) == (409, 1_000_000)
        answer = patch(other, DATA[1_000_000:], offset=1_000_000)
        assert answer.json() == {"offset": len(DATA), "complete": True}
        for client in (publisher, other):
            assert client.post("/api/v1/blobs/missing", json=wanted).json() == {"missing": []}
            whole = client.get(f"/blobs/{SHA256}")
            assert whole.content == DATA
            assert "immutable" in whole.headers["cache-control"]
            part = client.get(f"/blobs/{SHA256}", headers={"Range": "bytes=1000-1999"})
            assert (part.status_code, part.content) == (206, DATA[1000:2000])
            assert part.headers["content-range"] == f"bytes 1000-1999/{len(DATA)}"
            head = client.head(f"/blobs/{SHA256}")
            assert head.headers["content-length"] == str(len(DATA))
            known = client.get(f"/blobs/{SHA256}", headers={"If-None-Match": f'"{SHA256}"'})
            assert known.status_code == 304
            assert client.get(f"/blobs/{'0' * 64}").json()["code"] == "blob_missing"
    assert bucket.keys() == [f"fleet/blobs/{SHA256}"]


def test_a_line_that_breaks_while_a_blob_is_read_is_gone_on_with(
    publisher: httpx.Client, line: Proxy
) -> None:
    patch(publisher, DATA)
    line.cut()
    line.plan = lambda: Fault("truncate", after=1_000_000)
    assert publisher.get(f"/blobs/{SHA256}").content == DATA
    assert line.struck["truncate"] >= 2


def test_a_store_that_is_away_is_an_error_with_a_sentence(
    publisher: httpx.Client, line: Proxy
) -> None:
    patch(publisher, DATA)
    line.down = True
    line.cut()
    for answer in (
        publisher.get(f"/blobs/{SHA256}"),
        publisher.get(f"/api/v1/blobs/{SHA256}/upload"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "blob_store_broken")
        assert "the store does not answer" in answer.json()["detail"]
        assert answer.headers["retry-after"]
    line.down = False
    assert publisher.get(f"/blobs/{SHA256}").content == DATA


def test_readyz_and_metrics_say_whether_the_store_is_there(
    client: httpx.Client, context: Context, line: Proxy
) -> None:
    watch = context.get(StoreWatch)

    def look() -> tuple[int, str, bool]:
        watch._look()
        ready = client.get("/readyz")
        up = "pilotwave_blob_store_up 1.0" in client.get("/metrics").text
        return ready.status_code, ready.json()["blobs"], up

    assert look() == (200, "ok", True)
    line.down = True
    line.cut()
    status, said, up = look()
    assert (status, up) == (200, False), "polls are answered without it"
    assert "the store does not answer" in said
    line.down = False
    assert look() == (200, "ok", True)


def test_the_command_names_the_store_and_says_what_is_wrong_with_it(
    settings: Settings, bucket: Bucket, tmp_path: Path
) -> None:
    def check(url: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PILOTWAVE_BLOBS": url}
        environment["PILOTWAVE_DATABASE_URL"] = settings.database_url
        words = ["check", "--data", settings.data_dir]
        return programs.run(programs.SERVER, words, environment=environment, folder=tmp_path)

    done = check(bucket.url)
    assert done.returncode == 0, done.stderr
    assert f"Blobs are in {bucket.url}.\n" in done.stdout
    done = check("s3://no-such-bucket")
    assert done.returncode == 2
    assert done.stderr == (
        "pilotwave-server: s3://no-such-bucket: there is no such bucket; create it, or correct "
        "PILOTWAVE_BLOBS\n"
    )


def test_published_files_are_looked_into(fleet: Fleet, settings: Settings) -> None:
    registry = fleet.registry
    registry.publish("detector", "2.0.0", files={"model.onnx": OLD})
    with pytest.raises(FormatMismatch):
        registry.publish("detector", "2.1.0", files={"model.onnx": b"\x00 no model"})
    key = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAAAAAAA"
    with pytest.raises(PrivateKeyFound):
        registry.publish("detector", "2.1.0", files={"model.onnx": OLD, "notes.txt": key})
    assert list((settings.data_dir / "scratch").iterdir()) == []


def test_a_delta_is_made_of_what_lies_in_the_bucket(
    fleet: Fleet, context: Context, tmp_path: Path
) -> None:
    fleet.registry.publish("detector", "2.0.0", files={"model.onnx": OLD})
    fleet.registry.publish("detector", "2.1.0", files={"model.onnx": NEW})
    cam = fleet.device()
    fleet.group("all", "*")
    fleet.assign("all", "2.1.0")
    assert cam.check_in(report("2.0.0")).status_code == 200
    worker = DeltaWorker(
        context.db,
        context.get(BlobStore),
        lambda: context.get(FleetState).snapshot,
        clock=context.clock,
        processes=1,
        folder=tmp_path / "deltas",
    )
    assert worker.work() == 2
    headers = {"Authorization": f"Bearer {cam.token}"}
    answer = cam.http.get(f"/deltas/{OLD_SHA}/{NEW_SHA}", headers=headers)
    assert applied(answer.content, OLD) == NEW
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_delta_waits_while_the_store_is_away(
    fleet: Fleet, context: Context, tmp_path: Path, line: Proxy
) -> None:
    fleet.registry.publish("detector", "2.1.0", files={"model.onnx": NEW})
    fleet.device()
    fleet.group("all", "*")
    fleet.assign("all", "2.1.0")
    worker = DeltaWorker(
        context.db,
        context.get(BlobStore),
        lambda: context.get(FleetState).snapshot,
        clock=context.clock,
        processes=1,
        folder=tmp_path / "deltas",
    )
    line.down = True
    line.cut()
    for _ in range(4):
        with pytest.raises(Exception, match="the store does not answer"):
            worker.work()
    line.down = False
    assert worker.work() == 1
    listed = fleet.operator.get("/api/v1/deltas?model=detector").json()["items"]
    assert [d["state"] for d in listed] != ["failed"]


def test_what_nobody_needs_goes_from_the_bucket(
    fleet: Fleet, context: Context, clock: FakeClock, bucket: Bucket
) -> None:
    store = context.get(BlobStore)
    before = set(bucket.keys("blobs"))
    done = purge(
        context.db, store, model="detector", version="1.1.0", reason="a test", actor="server",
        now=clock(),
    )  # fmt: skip
    assert done.blobs
    assert before - set(bucket.keys("blobs")) == {f"fleet/blobs/{s}" for s in done.blobs}
    # what a crash left: noted as removed, and there still
    bucket.client.put_object(Bucket=bucket.name, Key=f"fleet/blobs/{done.blobs[0]}", Body=b"x")
    assert collect(context.db, store, keep_versions=0, now=clock()).blobs == [done.blobs[0]]
    assert f"fleet/blobs/{done.blobs[0]}" not in bucket.keys("blobs")


@pytest.mark.parametrize(
    "wrong", ["s3://", "http://x/y", "s3://a b/c", "s3://models/../x", "s3://x/?y"]
)
def test_a_setting_that_names_no_bucket_is_refused(
    settings: Settings, db: Database, wrong: str
) -> None:
    with pytest.raises(BadSetting, match="expected a folder, s3://bucket/prefix"):
        open_store(settings.model_copy(update={"blobs": wrong}), db)


def test_a_folder_may_be_named_and_is_the_default(
    settings: Settings, db: Database, tmp_path: Path
) -> None:
    for setting, folder in (("", tmp_path / "blobs"), (str(tmp_path / "x"), tmp_path / "x")):
        store = open_store(settings.model_copy(update={"blobs": setting}), db)
        assert isinstance(store, FileBlobs)
        assert (store.root, store.name) == (folder, f"the folder {folder}")


def test_a_device_is_told_where_its_file_lies_and_says_what_it_took(
    fleet: Fleet, bucket: Bucket
) -> None:
    fleet.registry.publish("detector", "2.0.0", files={"model.onnx": OLD})
    cam = fleet.device(site="berlin")
    fleet.group("all", "*")
    fleet.assign("all", "2.0.0")

    def ask(path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {cam.token}"}
        return cam.http.get(f"/device/v1/links{path}", headers=headers)

    link = ask(f"/blobs/{OLD_SHA}").json()
    assert urlsplit(link["url"]).path == f"/{bucket.name}/fleet/blobs/{OLD_SHA}"
    assert httpx.get(link["url"]).content == OLD
    part = httpx.get(link["url"], headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, OLD[100:200])
    # only what it may read, and by its token alone
    assert ask(f"/blobs/{NEW_SHA}").json()["code"] == "blob_denied"
    assert cam.http.get(f"/device/v1/links/blobs/{OLD_SHA}").status_code == 401

    took = DeviceEvent(1, START, "fetched_direct", "detector", "2.0.0", None, f"{len(OLD)} bytes")
    odd = replace(took, id=2, detail="-1 bytes")
    unknown = replace(took, id=3, version="7.7.7")
    lie = replace(took, id=4, detail="999999999999999 bytes")
    before = cam.seq
    assert cam.check_in(report("2.0.0"), events=(took,)).status_code == 200
    # the same event again is not counted again
    assert cam.check_in(report("2.0.0"), events=(took, odd, unknown)).status_code == 200
    assert cam.seq > before
    assert counted(fleet) == {"berlin": len(OLD)}
    assert cam.check_in(report("2.0.0"), events=(unknown, lie)).status_code == 200
    assert counted(fleet) == {"berlin": len(OLD) + MOST}

    limits = {"site": "berlin", "max_downloads": 3}
    assert fleet.operator.put("/api/v1/site-limits", json=limits).status_code == 200
    end = time.monotonic() + 10
    while ask(f"/blobs/{OLD_SHA}").json()["url"] is not None:
        assert time.monotonic() < end, "what goes past the server keeps to no limit"
        time.sleep(0.05)


def counted(fleet: Fleet) -> dict[str, int]:
    """Bytes of whole files by site."""
    fleet.context.get(Admission).counting.flush()
    answer = fleet.operator.get("/api/v1/bytes", params={"by": "site"}).json()["items"]
    return {row["site"]: row["sent_full"] for row in answer}


@pytest.mark.usefixtures("published")
def test_a_backup_of_a_bucket_is_put_back_into_another(
    settings: Settings, bucket: Bucket, tmp_path: Path
) -> None:
    other = bucket.server.bucket()

    def run(blobs: Bucket, data: Path, *words: object) -> str:
        environment = {**os.environ, "PILOTWAVE_BLOBS": blobs.url}
        if data == settings.data_dir:
            environment["PILOTWAVE_DATABASE_URL"] = settings.database_url
        done = programs.run(
            programs.SERVER, [*words, "--data", data], environment=environment, folder=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    backup, passphrase = tmp_path / "backup.tar", tmp_path / "passphrase"
    passphrase.write_text("a passphrase that is long enough")
    words = ["--passphrase-file", passphrase]
    run(bucket, settings.data_dir, "backup", "--to", backup, *words)
    said = run(other, tmp_path / "new", "restore", "--from", backup, *words)
    assert "missing" not in said, said
    assert other.keys() == bucket.keys("blobs")

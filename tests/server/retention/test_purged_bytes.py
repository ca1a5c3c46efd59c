"""Bytes that were purged with a version do not come back, unless an admin allows it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pilotwave_protocol.digest import sha256_hex
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.blobs.service import BlobPurged
from pilotwave_server.blobs.tables import BlobRow
from pilotwave_server.context import Context
from pilotwave_server.retention.remove import collect
from tests.conftest import FakeClock
from tests.server.fleet_fixtures import Fleet, fleet, published
from tests.server.registry.registry import onnx

__all__ = ["fleet", "published"]
API = "/api/v1"
SECRET, MODEL = b"a token that was sent", onnx("a model beside it")
FILES = {"model.onnx": MODEL, "notes.txt": SECRET}


@pytest.fixture
def purged(fleet: Fleet, admin: httpx.Client) -> Fleet:
    """A fleet in which detector 2.0.0 was purged, for a secret in one of its two files."""
    fleet.registry.publish("detector", "2.0.0", files=FILES)
    path = f"{API}/models/detector/versions/2.0.0/purge"
    assert admin.post(path, json={"reason": "a token was in it"}).json()["blobs"] == 2
    return fleet


def missing(client: httpx.Client, data: bytes) -> httpx.Response:
    wanted = {"blobs": [{"sha256": sha256_hex(data), "size": len(data)}]}
    return client.post(f"{API}/blobs/missing", json=wanted)


def upload(client: httpx.Client, data: bytes) -> httpx.Response:
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(data))}
    path = f"{API}/blobs/{sha256_hex(data)}/upload"
    return client.patch(path, content=data, headers=headers)


def readmit(client: httpx.Client, *files: str) -> httpx.Response:
    body: dict[str, Any] = {"reason": "only the notes were secret", "files": list(files) or None}
    return client.post(f"{API}/models/detector/versions/2.0.0/readmit", json=body)


@pytest.mark.parametrize("ask", [missing, upload])
def test_purged_bytes_are_refused_with_what_to_do(
    purged: Fleet, publisher: httpx.Client, context: Context, ask: Any
) -> None:
    answer = ask(publisher, SECRET)
    assert (answer.status_code, answer.json()["code"]) == (409, "blob_purged")
    assert "purged for good with detector 2.0.0" in answer.json()["detail"]
    assert (
        "`pilotwave versions readmit detector 2.0.0 --file PATH --reason WHY`"
        in answer.json()["detail"]
    )
    assert context.get(BlobStore).size(sha256_hex(SECRET)) is None


@pytest.mark.parametrize("model", ["detector", "reader"])
def test_no_model_publishes_purged_bytes_even_where_they_lie_on_the_disk(
    purged: Fleet, model: str
) -> None:
    registry = purged.registry
    if model != "detector":
        registry.create_model(model)
    with pytest.raises(BlobPurged):
        registry.publish(model, "3.0.0", files=FILES)
    registry.publish(model, "3.0.0", files={"model.onnx": onnx("another")})


def test_an_admin_lets_one_file_come_again_and_the_version_stays_purged(
    purged: Fleet, admin: httpx.Client, publisher: httpx.Client
) -> None:
    assert readmit(publisher).status_code == 403
    assert (readmit(admin, "no.txt").status_code, readmit(admin, "no.txt").json()["code"]) == (
        404,
        "file_unknown",
    )
    assert readmit(admin, "model.onnx").json()["blobs"] == [sha256_hex(MODEL)]
    assert upload(publisher, MODEL).status_code == 200
    assert upload(publisher, SECRET).status_code == 409
    purged.registry.publish("detector", "2.0.1", files={"model.onnx": MODEL})
    shown = admin.get(f"{API}/models/detector/versions/2.0.0").json()
    assert shown["purged"]["reason"] == "a token was in it"
    events = admin.get(f"{API}/events", params={"verb": "version.readmit"}).json()["items"]
    assert [event["object"] for event in events] == ["version/detector/2.0.0"]


def test_purging_again_bars_what_was_readmitted(
    purged: Fleet, admin: httpx.Client, publisher: httpx.Client
) -> None:
    assert len(readmit(admin).json()["blobs"]) == 2
    assert upload(publisher, SECRET).status_code == 200
    path = f"{API}/models/detector/versions/2.0.0/purge"
    assert admin.post(path, json={"reason": "it was"}).status_code == 200
    assert upload(publisher, SECRET).status_code == 409


def test_bytes_that_another_version_lists_are_not_barred(
    fleet: Fleet, admin: httpx.Client, publisher: httpx.Client
) -> None:
    """They are no secret there; purging the last version that lists them bars them."""
    fleet.registry.create_model("reader")
    fleet.registry.publish("reader", "1.0.0", files=FILES)
    fleet.registry.publish("detector", "2.0.0", files=FILES)
    path = f"{API}/models/%s/versions/%s/purge"
    assert admin.post(path % ("detector", "2.0.0"), json={"reason": "x"}).json()["blobs"] == 0
    fleet.registry.publish("detector", "2.0.1", files=FILES)
    assert missing(publisher, SECRET).json()["missing"] == []
    for model, version in (("detector", "2.0.1"), ("reader", "1.0.0")):
        assert admin.post(path % (model, version), json={"reason": "x"}).status_code == 200
    assert missing(publisher, SECRET).status_code == 409


def test_what_the_retention_removed_may_come_again(
    fleet: Fleet, publisher: httpx.Client, context: Context, clock: FakeClock
) -> None:
    fleet.registry.publish("detector", "2.0.0", files=FILES)
    fleet.registry.publish("detector", "2.1.0", files={"model.onnx": onnx("newer")})
    done = collect(context.db, context.get(BlobStore), keep_versions=1, now=clock())
    assert "detector 2.0.0" in done.versions
    assert upload(publisher, SECRET).status_code == 200


def test_an_upload_that_is_purged_while_it_comes_is_not_kept(
    fleet: Fleet, publisher: httpx.Client, context: Context
) -> None:
    sha256 = sha256_hex(SECRET)
    path, half = f"{API}/blobs/{sha256}/upload", len(SECRET) // 2
    headers = {"Upload-Offset": "0", "Upload-Length": str(len(SECRET))}
    assert publisher.patch(path, content=SECRET[:half], headers=headers).status_code == 200
    with context.db.write() as session:
        session.add(
            BlobRow(sha256=sha256, size=1, created_at=context.clock(), purged_with="detector 2.0.0")
        )
    headers["Upload-Offset"] = str(half)
    assert publisher.patch(path, content=SECRET[half:], headers=headers).status_code == 409
    assert context.get(BlobStore).size(sha256) is None

from __future__ import annotations

import os
import socket
import time
from typing import Literal

import httpx
import pytest

from pilotwave_protocol.digest import EMPTY_SHA256, sha256_hex
from pilotwave_server.blobs.flow import FREE, BlobGates, Flow
from pilotwave_server.blobs.tables import BlobRow
from pilotwave_server.context import Context
from tests.servers import RunningServer

pytestmark = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
DATA = os.urandom(3_000_000)
SHA256 = sha256_hex(DATA)
UPLOAD = f"/api/v1/blobs/{SHA256}/upload"


def patch(
    client: httpx.Client, data: bytes, *, offset: int = 0, sha256: str = SHA256, length: int = 0
) -> httpx.Response:
    return client.patch(
        f"/api/v1/blobs/{sha256}/upload",
        content=data,
        headers={"Upload-Offset": str(offset), "Upload-Length": str(length or len(DATA))},
    )


@pytest.fixture
def stored(publisher: httpx.Client) -> None:
    assert patch(publisher, DATA).json() == {"offset": len(DATA), "complete": True}


def test_a_blob_goes_up_in_pieces_and_comes_down_whole(
    publisher: httpx.Client, viewer: httpx.Client, context: Context
) -> None:
    wanted = {"blobs": [{"sha256": SHA256, "size": len(DATA)}]}
    asked = publisher.post("/api/v1/blobs/missing", json=wanted)
    assert asked.json() == {"missing": [{"sha256": SHA256, "offset": 0}]}
    answer = patch(publisher, DATA[:1_000_000])
    assert answer.json() == {"offset": 1_000_000, "complete": False}
    asked = publisher.post("/api/v1/blobs/missing", json=wanted)
    assert asked.json() == {"missing": [{"sha256": SHA256, "offset": 1_000_000}]}
    head = publisher.head(UPLOAD)
    assert (head.headers["upload-offset"], head.headers["upload-complete"]) == ("1000000", "?0")
    answer = patch(publisher, DATA[1_000_000:], offset=1_000_000)
    assert answer.json() == {"offset": len(DATA), "complete": True}
    assert publisher.get(UPLOAD).json() == {"offset": len(DATA), "complete": True}
    asked = publisher.post("/api/v1/blobs/missing", json=wanted)
    assert asked.json() == {"missing": []}
    assert viewer.get(f"/blobs/{SHA256}").content == DATA
    with context.db.read() as session:
        row = session.get_one(BlobRow, SHA256)
        assert (row.size, row.uploaded_by) == (len(DATA), "token/test-publisher")


@pytest.mark.usefixtures("stored")
def test_what_is_there_is_not_taken_twice(publisher: httpx.Client) -> None:
    assert patch(publisher, b"whatever").json() == {"offset": len(DATA), "complete": True}


def test_an_upload_says_where_to_go_on(publisher: httpx.Client) -> None:
    patch(publisher, DATA[:1000])
    answer = patch(publisher, DATA)
    assert answer.status_code == 409
    assert answer.json()["code"] == "offset_mismatch"
    assert answer.json()["offset"] == 1000


def test_wrong_bytes_are_refused_and_dropped(publisher: httpx.Client) -> None:
    answer = patch(publisher, DATA[:-1] + b"x")
    assert answer.status_code == 422
    assert answer.json()["code"] == "digest_mismatch"
    assert publisher.get(UPLOAD).json() == {"offset": 0, "complete": False}


def test_too_many_bytes_are_refused(publisher: httpx.Client) -> None:
    answer = patch(publisher, DATA, length=1000)
    assert (answer.status_code, answer.json()["code"]) == (413, "blob_too_long")


def test_an_empty_blob_is_a_blob(publisher: httpx.Client, viewer: httpx.Client) -> None:
    headers = {"Upload-Offset": "0", "Upload-Length": "0"}
    done = publisher.patch(f"/api/v1/blobs/{EMPTY_SHA256}/upload", headers=headers)
    assert done.json() == {"offset": 0, "complete": True}
    answer = viewer.get(f"/blobs/{EMPTY_SHA256}")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_wrong_size_in_a_question_is_said(publisher: httpx.Client) -> None:
    patch(publisher, DATA)
    wanted = {"blobs": [{"sha256": SHA256, "size": 5}]}
    answer = publisher.post("/api/v1/blobs/missing", json=wanted)
    assert (answer.status_code, answer.json()["code"]) == (422, "size_mismatch")


def test_a_broken_connection_loses_nothing_that_arrived(
    publisher: httpx.Client, server: RunningServer, publisher_token: str
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        head = (
            f"PATCH {UPLOAD} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {publisher_token}\r\n"
            f"Upload-Offset: 0\r\nUpload-Length: {len(DATA)}\r\nContent-Length: {len(DATA)}\r\n\r\n"
        )
        raw.sendall(head.encode() + DATA[:2_000_000])
        _until(lambda: publisher.get(UPLOAD).json()["offset"] >= 1_000_000)
        # the hold is the broken connection's until the server has noticed
        busy = patch(publisher, DATA)
        assert (busy.status_code, busy.json()["code"]) == (409, "blob_busy")
    _until(lambda: publisher.get(UPLOAD).json()["offset"] == 2_000_000)

    def goes_on() -> bool:
        return patch(publisher, DATA[2_000_000:], offset=2_000_000).status_code == 200

    _until(goes_on)
    assert publisher.get(f"/blobs/{SHA256}").content == DATA


def _until(done: object, *, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not done():  # type: ignore[operator]  # a callable
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.usefixtures("stored")
def test_a_part_of_a_blob_can_be_read(viewer: httpx.Client) -> None:
    url = f"/blobs/{SHA256}"
    part = viewer.get(url, headers={"Range": "bytes=1000-"})
    assert part.status_code == 206
    assert part.content == DATA[1000:]
    assert part.headers["content-range"] == f"bytes 1000-{len(DATA) - 1}/{len(DATA)}"
    assert part.headers["etag"] == f'"{SHA256}"'
    assert "immutable" in part.headers["cache-control"]
    stale = viewer.get(url, headers={"Range": "bytes=1000-", "If-Range": '"other"'})
    assert (stale.status_code, stale.content) == (200, DATA)
    beyond = viewer.get(url, headers={"Range": f"bytes={len(DATA)}-"})
    assert (beyond.status_code, beyond.content) == (416, b"")
    assert beyond.headers["content-range"] == f"bytes */{len(DATA)}"
    known = viewer.get(url, headers={"If-None-Match": f'"{SHA256}"'})
    assert (known.status_code, known.content) == (304, b"")


@pytest.mark.usefixtures("stored")
def test_the_size_of_a_blob_can_be_asked_for(viewer: httpx.Client) -> None:
    head = viewer.head(f"/blobs/{SHA256}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(DATA))
    assert head.headers["accept-ranges"] == "bytes"


@pytest.mark.usefixtures("stored")
def test_a_blob_is_given_to_nobody_without_a_token(client: httpx.Client) -> None:
    tokens = {None: "token_missing", "Basic x": "token_missing", "Bearer x": "bad_token"}
    for token, code in tokens.items():
        headers = {"Authorization": token} if token else {}
        answer = client.get(f"/blobs/{SHA256}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, code)
    answer = client.get(f"/blobs/{SHA256}", headers={"Authorization": "Bearer pw_x_y"})
    assert answer.status_code == 401


@pytest.mark.usefixtures("stored")
def test_a_gate_decides_for_the_tokens_of_its_kind(client: httpx.Client, context: Context) -> None:
    async def gate(bearer: str, sha256: str, *, path: str = "") -> Flow | Literal[False] | None:
        if bearer == "dev-no":
            return False
        return FREE if bearer == "dev-yes" else None

    context.get(BlobGates).insert(0, gate)

    def status(token: str) -> tuple[int, str]:
        answer = client.get(f"/blobs/{SHA256}", headers={"Authorization": f"Bearer {token}"})
        return answer.status_code, answer.json()["code"] if answer.status_code != 200 else ""

    assert status("dev-yes") == (200, "")
    assert status("dev-no") == (403, "blob_denied")
    assert status("unknown") == (401, "bad_token")


def test_what_is_not_there_is_said_in_a_sentence(viewer: httpx.Client) -> None:
    answer = viewer.get(f"/blobs/{SHA256}")
    assert (answer.status_code, answer.json()["code"]) == (404, "blob_missing")


def test_bad_requests_get_a_sentence(publisher: httpx.Client) -> None:
    def part(offset: str, length: str) -> httpx.Response:
        headers = {"Upload-Offset": offset, "Upload-Length": length}
        return publisher.patch(UPLOAD, content=b"x", headers=headers)

    def ask(document: object) -> httpx.Response:
        return publisher.post("/api/v1/blobs/missing", json=document)

    for answer in [
        publisher.patch(UPLOAD, content=b"x"),
        part("-1", "5"),
        part("0", "x"),
        part("0", "1" * 30),
        publisher.patch("/api/v1/blobs/ABC/upload", content=b"x"),
        publisher.get("/api/v1/blobs/%2e%2e%2fetc/upload"),
        ask({"blobs": [{"sha256": "x", "size": 1}]}),
        ask({"blobs": [{"sha256": SHA256, "size": "1"}]}),
        ask({"blobs": [], "more": 1}),
    ]:
        assert answer.status_code in (404, 422), answer.text
        assert answer.json()["detail"]


def test_only_publishers_upload(viewer: httpx.Client, operator: httpx.Client) -> None:
    for client in (viewer, operator):
        assert patch(client, DATA).status_code == 403

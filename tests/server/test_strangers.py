"""A stranger's body is not read; whoever is known may send what the routes take."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import httpx
import pytest
from starlette.types import Message, Receive

from pilotwave_server.edge import BodyTooSlow, timed
from pilotwave_server.problems import EarlyProblem
from pilotwave_server.strangers import MAX_BYTES
from tests.servers import RunningServer

PATHS = [
    "POST /api/v1/tokens",
    "POST /api/v1/models/detector/metadata",
    "POST /api/v1/trust/root",
    "PATCH /api/v1/blobs/" + "ab" * 32 + "/upload",
    "PUT /api/v1/policies/p",
    "POST /policies/new",
    "POST /devices/cam-1/labels",
]
STRANGERS = {
    "nothing": "",
    "another's token": "Authorization: Bearer pw_abcdefgh_ijklmnopqrstuvwxyz\r\n",
    "no token": f"Authorization: Bearer {'a' * 5000}\r\n",
    "another scheme": "Authorization: Basic YTpi\r\n",
    "a made-up session": f"Cookie: pilotwave_session={'0' * 64}\r\n",
}
BODIES = {
    "a length": f"Content-Length: {7 << 20}\r\n",
    "chunks": "Transfer-Encoding: chunked\r\n",
}


@pytest.fixture
def database_kind() -> str:
    """What is refused here never comes to the database's own dialect."""
    return "sqlite"


@contextlib.contextmanager
def connection(server: RunningServer) -> Iterator[socket.socket]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as line:
        yield line


@pytest.mark.parametrize("path", PATHS)
def test_a_stranger_is_answered_before_the_body_comes(server: RunningServer, path: str) -> None:
    for who, headers in STRANGERS.items():
        for kind, length in BODIES.items():
            with connection(server) as line:
                head = f"{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                line.sendall(f"{head}{headers}{length}\r\n".encode())
                status = line.recv(1000).split(b" ")[1]
            assert status in (b"401", b"303"), (who, kind, status)


def test_repeated_keys_of_a_stranger_cost_nothing(client: httpx.Client) -> None:
    """They took 13.6 s of CPU before the token was looked for."""
    raw = b"{" + b",".join(b'"%06d":1' % i for i in range(20_000)) + b',"z":1,"z":1}'
    answer = client.post(
        "/api/v1/tokens", content=raw, headers={"Content-Type": "application/json"}
    )
    assert answer.json()["code"] == "token_missing"


@pytest.mark.parametrize("path", ["/login", "/login/code", "/language", "/device/v1/enrol"])
def test_a_stranger_may_send_little_where_strangers_have_business(
    client: httpx.Client, path: str
) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = client.post(path, content=b"a" * (MAX_BYTES + 1), headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert client.post(path, content=b"a=b", headers=kind).status_code in (303, 401, 422)


def test_a_known_sender_is_read(admin: httpx.Client) -> None:
    answer = admin.post("/api/v1/tokens", json={"name": "a", "role": "viewer"})
    assert answer.status_code == 201


def test_cookies_with_escapes_are_left_out_and_others_kept(client: httpx.Client) -> None:
    """Python takes quadratic time to read escapes, and FastAPI reads every cookie."""
    bad = 'a="' + '\\"' * 6000 + '"'
    answer = client.get("/login", headers={"Cookie": f"{bad}; pilotwave_language=zh-Hans"})
    assert answer.status_code == 200
    assert 'lang="zh-Hans"' in answer.text


def body(pieces: list[bytes], *, gap_s: float) -> Receive:
    waiting = list(pieces)

    async def receive() -> Message:
        await asyncio.sleep(gap_s)
        piece = waiting.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    return receive


async def read(pieces: list[bytes], *, gap_s: float, seconds: float) -> int:
    receive, seen = timed(body(pieces, gap_s=gap_s), seconds=seconds), 0
    while True:
        message = await receive()
        seen += len(message["body"])
        if not message["more_body"]:
            return seen


def test_a_body_that_drips_is_refused_and_one_that_flows_has_its_time() -> None:
    with pytest.raises(EarlyProblem) as refused:
        asyncio.run(read([b"a"] * 100, gap_s=0.02, seconds=0.2))
    assert isinstance(refused.value.error, BodyTooSlow)
    assert refused.value.error.code == "body_too_slow"
    assert refused.value.error.headers == {"Connection": "close"}
    assert asyncio.run(read([b"a" * 4096] * 20, gap_s=0.02, seconds=0.2)) == 20 * 4096

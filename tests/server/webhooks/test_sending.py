"""One call against real peers that fail, stall, redirect, drip and flood."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import pytest

from pilotwave_server.webhooks.sending import CallOutcome, call
from pilotwave_server.webhooks.targets import Targets, read_url
from tests.peers import receiver as peer

TIMEOUT_S = 1.0


def send(url: str, *, allowed: Targets = "any", body: bytes = b"{}") -> CallOutcome:
    async def run() -> CallOutcome:
        return await call(
            read_url(url),
            body,
            {"Content-Type": "application/json"},
            allowed=allowed,
            timeout_s=TIMEOUT_S,
            tls=ssl.create_default_context(),
        )

    return asyncio.run(run())


@pytest.mark.parametrize("code", [200, 201, 204, 299])
def test_any_2xx_is_success(code: int) -> None:
    with peer.receiver(peer.status(code)) as receiver:
        assert send(receiver.url + "/hook?a=b", body=b'{"x":1}') == CallOutcome(code, None)
    (request,) = receiver.calls
    assert (request.path, request.body) == ("/hook?a=b", b'{"x":1}')
    assert request.headers["host"] == receiver.url.removeprefix("http://")


BAD = [
    # what the peer does, the status noted, a word of the sentence
    (peer.status(500), 500, "expected 2xx"),
    (peer.status(404), 404, "expected 2xx"),
    (peer.status(302, "Location: http://127.0.0.1:9/"), 302, "redirects are not followed"),
    (peer.status(307, "Location: http://127.0.0.1:9/"), 307, "redirects are not followed"),
    (peer.stalls, None, "no answer within 1 s"),
    (peer.drips, None, "no answer within 1 s"),
    (peer.floods, None, "not HTTP/1.1"),
    (peer.hangs_up, None, "ended before an answer"),
    (peer.says(b"SSH-2.0-OpenSSH_9.6\r\n"), None, "not HTTP/1.1"),
    (peer.says(b"HTTP/1.1 999999999999999999999 X\r\n\r\n"), None, "not HTTP/1.1"),
    (peer.says(b"HTTP/1.1 100 Continue\r\n\r\n" * 50), None, "ended before"),
]


@pytest.mark.parametrize(("answer", "status", "word"), BAD)
def test_a_bad_peer_costs_a_bounded_time_and_is_named(
    answer: peer.Answer, status: int | None, word: str
) -> None:
    with peer.receiver(answer) as receiver:
        began = time.monotonic()
        outcome = send(receiver.url)
        took = time.monotonic() - began
    assert not outcome.ok
    assert outcome.status == status
    assert word in str(outcome.error)
    assert took < TIMEOUT_S + 5
    assert len(receiver.calls) == 1


def test_an_endless_body_is_not_read() -> None:
    with peer.receiver(peer.endless_body) as receiver:
        assert send(receiver.url).ok


def test_where_nobody_listens_it_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "no connection" in str(send(f"http://127.0.0.1:{port}").error)
    assert "no connection" in str(send("http://no-such-host.invalid/").error)


def test_a_forbidden_address_is_not_connected_to() -> None:
    with peer.receiver() as receiver:
        outcome = send(receiver.url, allowed="private")
        assert "this machine" in str(outcome.error)
        named = receiver.url.replace("127.0.0.1", "localhost")
        assert "this machine" in str(send(named, allowed="public").error)
    assert receiver.calls == []


def test_a_peer_without_a_good_certificate_is_not_told() -> None:
    with peer.receiver() as receiver:
        outcome = send(receiver.url.replace("http:", "https:"))
    assert not outcome.ok
    assert all(not c.body for c in receiver.calls)

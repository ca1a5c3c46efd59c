"""Requests that two HTTP parsers might read differently: one request, at most one answer."""

from __future__ import annotations

import select
import socket

import pytest

from tests.servers import RunningServer

HIDDEN = "GET /healthz HTTP/1.1\r\nHost: hidden\r\n\r\n"
LENGTH = len(HIDDEN)
CHUNK = f"{LENGTH:x}\r\n{HIDDEN}\r\n0\r\n\r\n"
AMBIGUOUS = {
    "length and chunks": (f"Content-Length: {LENGTH}\r\nTransfer-Encoding: chunked", CHUNK),
    "chunks and no length": (f"Transfer-Encoding: chunked\r\nContent-Length: {LENGTH}", CHUNK),
    "two lengths": (f"Content-Length: {LENGTH}\r\nContent-Length: 0", HIDDEN),
    "a list of lengths": (f"Content-Length: 0, {LENGTH}", HIDDEN),
    "a signed length": (f"Content-Length: +{LENGTH}", HIDDEN),
    "a negative length": ("Content-Length: -1", HIDDEN),
    "a length in hex": (f"Content-Length: 0x{LENGTH:x}", HIDDEN),
    "a huge length": ("Content-Length: 99999999999999999999999", HIDDEN),
    "space before the colon": (f"Content-Length : {LENGTH}", HIDDEN),
    "other coding": ("Transfer-Encoding: xchunked", CHUNK),
    "chunked and more": ("Transfer-Encoding: chunked, identity", CHUNK),
    "chunked twice": ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", CHUNK),
    "tab in the coding": ("Transfer-Encoding:\tchunked\x0b", CHUNK),
    "folded": (f"X: 1\r\n Content-Length: {LENGTH}", HIDDEN),
    "bare line feeds": (f"X: 1\nContent-Length: {LENGTH}", HIDDEN),
    "bare return": (f"X: 1\rContent-Length: {LENGTH}", HIDDEN),
    "a NUL": (f"X: \x00\r\nContent-Length: {LENGTH}", HIDDEN),
    "chunk with a sign": ("Transfer-Encoding: chunked", f"+{CHUNK}"),
    "chunk without end": ("Transfer-Encoding: chunked", f"{LENGTH:x}\n{HIDDEN}\n0\n\n"),
    "a chunk too long": ("Transfer-Encoding: chunked", f"ffffffffffffffffff\r\n{HIDDEN}"),
}
PATHS = ["POST /device/v1/check-in", "GET /device/v1/directive", "POST /api/v1/models"]


def answers(server: RunningServer, sent: list[str], *, quiet_s: float = 1.0) -> list[list[bytes]]:
    """Send each on a line of its own; return the status lines that came back on each.

    The lines stay open: a server that sees an end may not read what it took for another request.
    """
    host, _, port = server.url.removeprefix("http://").partition(":")
    lines = [socket.create_connection((host, int(port))) for _ in sent]
    came = dict.fromkeys(lines, b"")
    for line, raw in zip(lines, sent, strict=True):
        line.sendall(raw.encode("latin-1"))
    while ready := select.select(lines, [], [], quiet_s)[0]:
        for line in ready:
            piece = line.recv(1 << 16)
            came[line] += piece
            if not piece:
                lines.remove(line)
    for line in came:
        line.close()
    return [
        [part.partition(b"\r\n")[0] for part in got.split(b"HTTP/1.1 ")[1:]]
        for got in came.values()
    ]


@pytest.fixture
def database_kind() -> str:
    """The parser stands before any database."""
    return "sqlite"


@pytest.mark.parametrize("path", PATHS)
def test_what_can_be_read_in_two_ways_never_hides_a_second_request(
    server: RunningServer, path: str
) -> None:
    sent = [
        f"{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}"
        for headers, body in AMBIGUOUS.values()
    ]
    for case, got in zip(AMBIGUOUS, answers(server, sent), strict=True):
        assert not any(status.startswith((b"2", b"5")) for status in got), (case, got)


@pytest.mark.parametrize("path", PATHS)
def test_a_request_with_a_body_leaves_the_next_one_whole(server: RunningServer, path: str) -> None:
    """Bodies that no route has asked for are passed over, on the hot path too."""
    first = f"{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {LENGTH}\r\n\r\n{HIDDEN}"
    (got,) = answers(server, [first + HIDDEN.replace("hidden", "x")], quiet_s=10.0)
    assert len(got) == 2
    assert got[0].startswith(b"4")
    assert got[1].startswith(b"200")

"""What strangers may hold of a server's connections: real sockets on a real server."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from pilotwave_server import openfiles
from pilotwave_server.app import create_app
from pilotwave_server.connections import MAX_HEAD, MAX_HEADERS
from pilotwave_server.settings import Settings
from tests.conftest import FakeClock, ServerFactory
from tests.servers import RunningServer, run_in_thread

PER_ADDRESS = 30
IN_ALL = 100
GET = "GET /healthz HTTP/1.1\r\nHost: x\r\n"
POST = "POST /login HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
CHECK_IN = "POST /device/v1/check-in HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def database_kind() -> str:
    """None of this reaches a database."""
    return "sqlite"


@pytest.fixture
def server(settings: Settings, clock: FakeClock) -> Iterator[RunningServer]:
    tight = {"max_connections_per_address": PER_ADDRESS, "max_connections": IN_ALL}
    with run_in_thread(create_app(settings.model_copy(update=tight), clock=clock)) as running:
        yield running


@contextlib.contextmanager
def lines(
    server: RunningServer, count: int, *, source: str = "127.0.0.1"
) -> Iterator[list[socket.socket]]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                socket.create_connection((host, int(port)), timeout=30, source_address=(source, 0))
            )
            for _ in range(count)
        ]


def status_of(line: socket.socket) -> int:
    """The status that came, 0 if the connection was closed without one."""
    try:
        said = line.recv(1000)
    except OSError:
        return 0
    return int(said.split(b" ")[1]) if said else 0


def is_open(line: socket.socket) -> bool:
    line.settimeout(0.05)
    try:
        return line.recv(1) != b""
    except TimeoutError:
        return True
    except OSError:
        return False


def ends_within(line: socket.socket, seconds: float) -> bool:
    line.settimeout(seconds)
    try:
        while line.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass  # a reset is an end too
    return True


HEADS = {
    "one long header": GET + "X: " + "a" * (2 * MAX_HEAD),
    "a long address": "GET /" + "a" * (2 * MAX_HEAD) + " HTTP/1.1\r\nHost: x\r\n\r\n",
    "many headers": GET + "X: y\r\n" * (MAX_HEADERS + 1) + "\r\n",
    "a long head that is whole": GET + "X: " + "a" * MAX_HEAD + "\r\n\r\n",
    "a head that grows for ever": GET + "Xyz: abcdefgh\r\n" * (MAX_HEAD // 8),
    "a long name": GET + "X" * (2 * MAX_HEAD),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_head_that_is_too_large_is_refused(server: RunningServer, case: str) -> None:
    """200 MB of headers were taken on one connection."""
    with lines(server, 1) as (line,):
        line.sendall(HEADS[case].encode())
        said = line.recv(2000)
        assert said.startswith(b"HTTP/1.1 431 ")
        assert b'"head_too_large"' in said
        assert ends_within(line, 10)


def test_a_head_just_small_enough_is_taken(server: RunningServer) -> None:
    with lines(server, 1) as (line,):
        line.sendall(f"{GET}X: {'a' * (MAX_HEAD - 500)}\r\n\r\n".encode())
        assert status_of(line) == 200


def test_many_megabytes_of_headers_leave_no_trace_in_memory(server_factory: ServerFactory) -> None:
    program = server_factory()
    assert program.process is not None
    process = psutil.Process(program.process.pid)
    host, _, port = program.url.removeprefix("http://").partition(":")
    before = process.memory_info().rss
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            line = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            line.sendall(GET.encode())
            with contextlib.suppress(OSError):
                for _ in range(100):
                    line.sendall(b"X: " + b"a" * 100_000 + b"\r\n")
        assert process.memory_info().rss - before < 30 << 20


def test_trailers_and_framing_without_end_are_cut_off(server: RunningServer) -> None:
    chunked = f"{CHECK_IN}Transfer-Encoding: chunked\r\n\r\n"
    with lines(server, 2) as (trailers, extensions):
        for line, piece in ((trailers, b"X: y\r\n" * 1000), (extensions, b"1;" + b"a" * 10_000)):
            line.sendall(chunked.encode() + (b"0\r\n" if line is trailers else b""))
            with contextlib.suppress(OSError):
                for _ in range(100):
                    line.sendall(piece)
            assert ends_within(line, 9)


def test_trailers_never_become_headers(server: RunningServer) -> None:
    with lines(server, 1) as (line,):
        body = "0\r\nAuthorization: Bearer a\r\n\r\n"
        line.sendall(f"{CHECK_IN}Transfer-Encoding: chunked\r\n\r\n{body}{GET}\r\n".encode())
        said = b""
        while said.count(b"HTTP/1.1 ") < 2:
            said += line.recv(1000)
        assert said.startswith(b"HTTP/1.1 422")


def test_an_unread_body_without_end_is_cut_off(server: RunningServer) -> None:
    head = "POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\n"
    for kind in (f"Content-Length: {1 << 40}", "Transfer-Encoding: chunked"):
        with lines(server, 1) as (line,):
            line.sendall(f"{head}{kind}\r\n\r\n".encode())
            assert status_of(line) == 401
            piece = b"10000\r\n" + b"a" * 65536 + b"\r\n"
            with pytest.raises(OSError):  # a reset or a broken pipe
                line.sendall(piece * 500)


def test_many_requests_ahead_of_their_answers_are_refused(server: RunningServer) -> None:
    with lines(server, 1) as (line,):
        line.sendall((GET + "\r\n").encode() * 2000)
        assert ends_within(line, 20)


SLOW = {
    "silent": "",
    "empty lines": "\r\n",
    "half a head": GET,
    "half a word": "GE",
    "an unread body": "POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n",
    "half a report": CHECK_IN + "Content-Length: 9999\r\n\r\n{",
    "answered once": GET + "\r\n",
}


def test_who_waits_for_long_is_closed(server: RunningServer) -> None:
    with contextlib.ExitStack() as stack:
        held = {name: stack.enter_context(lines(server, 1))[0] for name in SLOW}
        for name, line in held.items():
            line.sendall(SLOW[name].encode())
        began = time.monotonic()
        while time.monotonic() < began + 7:  # a byte now and then does not help
            for name in ("half a head", "empty lines"):
                with contextlib.suppress(OSError):
                    held[name].sendall(b"X: y\r\n" if name == "half a head" else b"\r\n")
            time.sleep(0.5)
        for name, line in held.items():
            assert ends_within(line, 15), name
        assert time.monotonic() - began < 25


def test_silent_connections_of_one_address_shut_nobody_out(server: RunningServer) -> None:
    """1,100 of them shut everybody out at 1,024 open files."""
    with lines(server, 4 * PER_ADDRESS) as silent:
        time.sleep(0.5)
        assert httpx.get(f"{server.url}/healthz", timeout=20).status_code == 200
        assert sum(map(is_open, silent)) <= PER_ADDRESS
        assert is_open(silent[-1])


def test_silent_connections_of_many_addresses_shut_nobody_out(server: RunningServer) -> None:
    with contextlib.ExitStack() as stack:
        for n in range(10):
            source = f"127.0.1.{n + 1}"
            stack.enter_context(lines(server, PER_ADDRESS - 5, source=source))
        time.sleep(0.5)
        for _ in range(5):
            assert httpx.get(f"{server.url}/healthz", timeout=20).status_code == 200


@pytest.mark.parametrize("begun", ["half a head", "an unread body", "half a report"])
def test_unfinished_requests_shut_nobody_out(server: RunningServer, begun: str) -> None:
    with lines(server, 3 * PER_ADDRESS) as unfinished:
        for line in unfinished:
            with contextlib.suppress(OSError):
                line.sendall(SLOW[begun].encode())
        assert httpx.get(f"{server.url}/healthz", timeout=20).status_code == 200


def test_a_known_senders_body_is_not_cut_off_for_others(
    server: RunningServer, admin_token: str
) -> None:
    body = b'{"name":"a","role":"viewer"}'
    head = (
        "POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {admin_token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with lines(server, 1) as (mine,):
        mine.sendall(head.encode() + body[:5])
        time.sleep(0.5)
        with lines(server, 3 * PER_ADDRESS):
            time.sleep(0.5)
            mine.sendall(body[5:])
            assert status_of(mine) == 201


def test_who_does_not_read_the_answers_does_not_grow(server: RunningServer) -> None:
    with lines(server, 1) as (line,):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        with contextlib.suppress(OSError):
            line.settimeout(3)
            for _ in range(3000):
                line.sendall(request)
    assert httpx.get(f"{server.url}/healthz", timeout=20).status_code == 200


def test_the_check_says_how_many_files_may_be_open() -> None:
    assert "at least 4096" in str(openfiles.shortage(1024, push_connections=0))
    assert "LimitNOFILE" in str(openfiles.shortage(8000, push_connections=20_000))
    assert openfiles.shortage(1 << 20, push_connections=20_000) is None
    assert openfiles.for_connections(1024) == 768
    assert openfiles.for_push(1024) < openfiles.for_connections(1024)


def test_the_server_raises_its_limit_of_open_files(server_factory: ServerFactory) -> None:
    program = server_factory()
    assert program.process is not None
    soft, hard = psutil.Process(program.process.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == min(hard, openfiles.MOST)

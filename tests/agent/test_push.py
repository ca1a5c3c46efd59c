"""The agent's channel against servers that lie, flood, fall silent, hang up and say no."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection, serve

from pilotwave_agent.core.schedule import Schedule
from pilotwave_agent.host.clock import Clock
from pilotwave_agent.push.channel import PONG_S, Lost
from pilotwave_agent.push.connection import FLOOD, LAST_RETRY_S, PushConnection
from pilotwave_agent.push.websocket import WebSocketChannel
from pilotwave_agent.settings.config import BadConfig, parse
from pilotwave_protocol.push import MAX_WITHIN_S, PushTerms, call_to_poll, within_of

TERMS = PushTerms(poll_interval_s=900, ping_s=240, spread_s=10)
Behave = Callable[[ServerConnection], None]


class HandClock(Clock):
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def uptime(self) -> float:
        return self.now


@dataclass
class FakeLine:
    """A channel that a test speaks for."""

    says: list[bytes] = field(default_factory=list)
    alive: bool = True
    lost: str = ""
    silent: bool = False
    closed: bool = False

    def fileno(self) -> int:
        return -1

    def hear(self, now: float) -> list[bytes]:
        if self.lost:
            raise Lost(self.lost, silent=self.silent)
        said, self.says = self.says, []
        return said

    def tend(self, now: float) -> float:
        return now + 240.0

    def close(self) -> None:
        self.closed = True


@dataclass
class Talk:
    token: str = "token"
    online: bool = True
    push: PushTerms | None = TERMS
    lost_tokens: int = 0

    def lose_token(self) -> None:
        self.lost_tokens += 1
        self.token = ""


class Bench:
    """A keeper with its schedule, and lines that open as the test says."""

    def __init__(self, **given: Any) -> None:
        self.clock, self.talk = HandClock(), Talk()
        self.schedule = Schedule(
            poll_s=60.0, check_in_s=900.0, chance=random.Random(3), next_poll=1060.0
        )
        self.lines: list[FakeLine] = []
        self.refuse: Lost | None = None
        self.tries: list[float] = []
        self.pings: list[int] = []
        self.keeper = PushConnection(self._open, self.schedule, self.clock, **given)

    def _open(self, token: str, terms: PushTerms) -> FakeLine:
        self.tries.append(self.clock.now)
        self.pings.append(terms.ping_s)
        if self.refuse:
            raise self.refuse
        self.lines.append(FakeLine())
        return self.lines[-1]

    def turn(self, later_s: float = 0.0) -> None:
        self.clock.now += later_s
        self.keeper.turn(self.talk)

    def live(self, seconds: float) -> None:
        ends = self.clock.now + seconds
        while self.clock.now < ends:
            self.keeper.turn(self.talk)
            self.clock.now = min(max(self.keeper.due(self.talk), self.clock.now + 0.1), ends)


def test_it_opens_one_channel_and_polls_are_seldom_while_it_lives() -> None:
    bench = Bench()
    bench.turn()
    bench.turn(1.0)
    assert len(bench.lines) == 1
    assert bench.schedule.stretch_s == 900.0
    bench.lines[0].says = [call_to_poll(0.0)]
    bench.turn(1.0)
    assert bench.schedule.next_poll == 1002.0


def test_polls_are_never_further_apart_than_the_devices_own_bound() -> None:
    bench = Bench(longest_s=120.0)
    bench.turn()
    assert bench.schedule.stretch_s == 120.0


@pytest.mark.parametrize(
    ("said", "within_s"),
    [
        (b"poll 0.00", 0.0),
        (b"poll 12", 12.0),
        (b"poll 999999", MAX_WITHIN_S),  # a liar cannot put a poll off for ever
        (b"poll", None),
        (b"poll -1", None),
        (b"poll nan", None),
        (b"poll 1e9", None),
        (b"poll 1 2", None),
        (b"install 9.9.9", None),  # it can say nothing else
        (b"poll 1" + b"0" * 100, None),
        ("poll \u0661".encode(), None),  # digits of other scripts
        (b"", None),
        (b"\xff\xfe", None),
    ],
)
def test_a_call_is_understood_or_passed_over(said: bytes, within_s: float | None) -> None:
    assert within_of(said) == within_s


def test_a_channel_that_dies_is_opened_again_and_polls_go_on_meanwhile() -> None:
    bench = Bench()
    bench.turn()
    bench.schedule.polled(1000.0)
    assert bench.schedule.next_poll > 1500.0
    bench.lines[0].lost = "cut"
    bench.turn(10.0)
    assert bench.lines[0].closed
    assert bench.schedule.stretch_s == 0.0
    assert bench.schedule.next_poll <= 1010.0 + 66.0
    bench.live(60.0)
    assert len(bench.lines) == 2
    assert bench.schedule.stretch_s == 900.0
    assert bench.schedule.next_poll <= 1080.0, "it asks what changed while nobody could call"


def test_a_path_that_forgets_idle_channels_gets_pings_closer_together() -> None:
    bench = Bench()
    for _ in range(7):
        bench.live(120)
        bench.lines[-1].lost, bench.lines[-1].silent = "no answer to a ping", True
        bench.turn()
        bench.live(400)
    assert bench.pings[:6] == [240, 120, 60, 30, 15, 15]
    bench.lines[-1].lost = "the server restarts"
    bench.turn()
    bench.live(400)
    assert bench.pings[-1] == 15


def test_a_dead_end_is_tried_ever_more_seldom_with_full_jitter() -> None:
    bench = Bench()
    bench.refuse = Lost("nobody there")
    bench.live(24 * 3600.0)
    gaps = [b - a for a, b in pairwise(bench.tries)]
    assert 24 * 3600 / LAST_RETRY_S < len(bench.tries) < 24 * 3600 / (LAST_RETRY_S / 3)
    assert max(gaps) <= LAST_RETRY_S
    assert len({round(gap, 3) for gap in gaps[-50:]}) > 40


def test_a_channel_that_opens_and_dies_at_once_counts_as_one_that_did_not_open() -> None:
    bench = Bench()
    while bench.clock.now < 1000.0 + 3600.0:
        bench.live(1.0)
        if bench.lines and not bench.lines[-1].closed:
            bench.lines[-1].lost = "flapping"
    assert len(bench.tries) < 60


def test_a_server_that_asks_for_patience_gets_it() -> None:
    bench = Bench()
    bench.refuse = Lost("full", after_s=600.0)
    bench.live(1500.0)
    assert len(bench.tries) <= 3


def test_a_refused_token_is_changed_for_another() -> None:
    bench = Bench()
    bench.refuse = Lost("401", bad_token=True)
    bench.turn()
    assert bench.talk.lost_tokens == 1
    bench.live(100.0)
    assert len(bench.tries) == 1, "without a token there is nothing to try"


def test_a_flood_of_calls_closes_the_channel() -> None:
    bench = Bench()
    bench.turn()
    bench.lines[0].says = [call_to_poll(0.0)] * (FLOOD + 1)
    bench.turn(1.0)
    assert bench.lines[0].closed
    bench.live(LAST_RETRY_S - 1.0)
    assert len(bench.lines) == 1


def test_nothing_is_opened_where_the_server_offers_no_push() -> None:
    bench = Bench()
    bench.talk.push = None
    bench.live(1000.0)
    assert bench.tries == []


def test_a_broker_without_a_server_is_no_reason_to_poll_seldom() -> None:
    bench = Bench()
    bench.turn()
    assert bench.schedule.stretch_s == 900.0
    bench.lines[0].alive = False
    bench.turn(1.0)
    assert bench.schedule.stretch_s == 0.0
    bench.lines[0].alive = True
    bench.turn(1.0)
    assert bench.schedule.stretch_s == 900.0


# --- a real socket, and a server that misbehaves


@contextmanager
def peer(behave: Behave) -> Iterator[str]:
    with serve(behave, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        port = server.socket.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        server.shutdown()
        thread.join(10)


def line_to(url: str, *, timeout_s: float = 10.0) -> WebSocketChannel:
    return WebSocketChannel(url, "t", ca_file=None, timeout_s=timeout_s, ping_s=240.0)


def heard(line: WebSocketChannel, count: int) -> list[bytes]:
    calls: list[bytes] = []
    ends = time.monotonic() + 20
    while len(calls) < count:
        assert time.monotonic() < ends, calls
        calls += line.hear(0.0)
        time.sleep(0.01)
    return calls


def until_lost(line: WebSocketChannel) -> str:
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        try:
            line.hear(0.0)
        except Lost as e:
            return str(e)
        time.sleep(0.01)
    raise AssertionError("the line still lives")


def test_the_token_travels_in_a_header_and_never_in_the_url() -> None:
    seen: list[tuple[str, str]] = []

    def behave(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append((socket.request.path, socket.request.headers["Authorization"]))
        socket.send("poll 0.00")
        socket.recv()

    with peer(behave) as url, closing(line_to(url)) as line:
        assert heard(line, 1) == [b"poll 0.00"]
    assert seen == [("/device/v1/push", "Bearer t")]


def shaken_hands(connection: socket.socket) -> ServerProtocol:
    """Read a handshake; what it is answered with is still to be sent."""
    protocol = ServerProtocol()
    while not protocol.events:
        protocol.receive_data(connection.recv(4096))
    (request,) = protocol.events_received()
    protocol.send_response(protocol.accept(request))  # type: ignore[arg-type]  # the first event is one
    return protocol


def test_a_server_that_falls_silent_is_found_out_by_a_ping() -> None:
    """Its kernel still takes what is sent, as behind a network that drops everything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready = threading.Event()

        def shake_hands_and_freeze() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"".join(shaken_hands(connection).data_to_send()))
                ready.wait(30)

        thread = threading.Thread(target=shake_hands_and_freeze, daemon=True)
        thread.start()
        with closing(line_to(f"http://127.0.0.1:{listener.getsockname()[1]}")) as line:
            assert line.tend(0.0) == 240.0
            assert line.tend(240.0) == 240.0 + PONG_S
            assert line.hear(241.0) == []
            with pytest.raises(Lost, match="does not answer"):
                line.tend(240.0 + PONG_S)
        ready.set()
        thread.join(10)


def test_a_server_that_answers_pings_is_kept() -> None:
    def behave(socket: ServerConnection) -> None:
        socket.recv()

    with peer(behave) as url, closing(line_to(url)) as line:
        line.tend(0.0)
        line.tend(240.0)
        ends = time.monotonic() + 20
        while line.tend(241.0) != 241.0 + 240.0:
            assert time.monotonic() < ends
            line.hear(241.0)
            time.sleep(0.01)


@pytest.mark.parametrize(
    "said",
    ["x" * 1000, b"\x00" * 65, "poll 0.00" * 20_000],
)
def test_a_server_that_says_too_much_is_hung_up_on(said: str | bytes) -> None:
    def behave(socket: ServerConnection) -> None:
        socket.send(said)
        socket.recv()

    with peer(behave) as url, pytest.raises(Lost), closing(line_to(url)) as line:
        raise Lost(until_lost(line))


def test_a_server_that_hangs_up_is_lost_with_its_reason() -> None:
    def behave(socket: ServerConnection) -> None:
        socket.close(4401, "this device may not listen any more")

    with peer(behave) as url, pytest.raises(Lost, match="4401"), closing(line_to(url)) as line:
        raise Lost(until_lost(line))


def test_a_farewell_that_comes_in_one_piece_with_the_handshake_is_understood() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands_and_leave() -> None:
            connection, _ = listener.accept()
            with connection:
                protocol = shaken_hands(connection)
                protocol.send_close(4401, "this device may not listen any more")
                connection.sendall(b"".join(protocol.data_to_send()))

        thread = threading.Thread(target=shake_hands_and_leave, daemon=True)
        thread.start()
        with pytest.raises(Lost, match="4401"):
            line_to(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "bad_token", "after_s"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", True, 0.0),
        (
            b"HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n",
            False,
            60.0,
        ),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False, 0.0),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2/\r\nContent-Length: 0\r\n\r\n",
            False,
            0,
        ),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", False, 0),
        (b"SSH-2.0-OpenSSH\r\n", False, 0.0),
        (b"", False, 0.0),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, False, 0.0),
    ],
)
def test_a_refusal_says_what_to_do_next(answer: bytes, bad_token: bool, after_s: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            # the other end may be gone before the whole answer is out
            with connection, suppress(OSError):
                connection.recv(4096)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=refuse, daemon=True)
        thread.start()
        with pytest.raises(Lost) as lost:
            line_to(f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert (lost.value.bad_token, lost.value.after_s) == (bad_token, after_s)
        thread.join(10)


def test_a_server_that_takes_its_time_over_the_handshake_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with pytest.raises(Lost):
            line_to(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.5)
        assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("push", "words"),
    [
        ({"channel": "smoke"}, "off, websocket, mqtt"),
        ({"channel": "mqtt"}, "mqtt://host:1883"),
        ({"channel": "mqtt", "url": "http://broker"}, "mqtt://host:1883"),
        ({"channel": "mqtt", "url": "mqtt://me:secret@broker"}, "mqtt://host:1883"),
        ({"channel": "websocket", "chanel": "x"}, "chanel"),
    ],
)
def test_a_wrong_setting_is_named(push: dict[str, str], words: str, tmp_path: Any) -> None:
    data = {"server": "http://127.0.0.1", "device": "cam-1", "data_dir": ".", "push": push}
    with pytest.raises(BadConfig) as bad:
        parse(data, base=tmp_path)
    assert words in str(bad.value)

"""Captured cases on their way: within the day's budget, never over a metered network, and one case
however often they are sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pilotwave_agent.captures import MOST_AT_ONCE, forget, kept
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.net.http import Channel
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.messages.case import split_case
from tests.agent.mortal import Dies, Mortal
from tests.agent.test_captures import WALL, Desk
from tests.peers.device import Device

ROOT = Path("/nowhere")


class Receiver:
    """A server that takes cases: it notes the id of each, and may answer something else, or break
    the connection off once it has the case."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.status, self.silent = 204, False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.ids.append(sha256_hex(split_case(raw)[1]))
                if receiver.silent:
                    self.close_connection = True
                    return
                self.send_response(receiver.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.channel = Channel(f"http://127.0.0.1:{self._server.server_port}")

    def close(self) -> None:
        self.channel.close()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def send(desk: Desk, receiver: Receiver, *, now: float = 1e6, wall: float = WALL) -> None:
    captures = desk.captures()
    captures.collect(wall)
    captures.send(receiver.channel, "token", now=now, wall=wall, root=ROOT)


def test_a_flood_is_sent_within_the_days_budget_whatever_restarts(
    device: Device, receiver: Receiver
) -> None:
    desk = Desk(device, max_mb_per_day=1)
    for n in range(40):
        desk.leave(bytes([n]) * 100_000)
    for _ in range(8):  # each a restarted agent
        send(desk, receiver)
    assert len(receiver.ids) == len(set(receiver.ids)) == (1 << 20) // 100_500
    send(desk, receiver, wall=WALL + 86_400)
    assert len(receiver.ids) == (1 << 20) // 100_500 + MOST_AT_ONCE


@pytest.mark.parametrize("metered", [True, None])
def test_nothing_is_sent_unless_the_network_is_known_to_be_unmetered(
    device: Device, receiver: Receiver, metered: bool | None
) -> None:
    desk = Desk(device)
    device.set(metered=metered)
    desk.leave(b"sealed")
    send(desk, receiver)
    assert (receiver.ids, len(desk.names())) == ([], 1)


def test_an_older_server_is_asked_again_a_day_later(device: Device, receiver: Receiver) -> None:
    desk, receiver.status = Desk(device), 404
    for n in range(3):
        desk.leave(bytes([n]))
    captures = desk.captures()
    captures.collect(WALL)
    for now in (0.0, 3600.0, 86_000.0):
        captures.send(receiver.channel, "token", now=now, wall=WALL, root=ROOT)
    assert len(receiver.ids) == 1
    receiver.status = 204
    captures.send(receiver.channel, "token", now=86_500.0, wall=WALL, root=ROOT)
    assert not [name for name in desk.names() if name.endswith(".case")]


def test_a_case_that_no_server_takes_is_dropped(device: Device, receiver: Receiver) -> None:
    desk, receiver.status = Desk(device), 422
    desk.leave(b"sealed")
    send(desk, receiver)
    assert (len(receiver.ids), desk.names()) == (1, ["sent.json"])


def test_what_was_sent_without_an_answer_is_sent_again_as_the_same_case(
    device: Device, receiver: Receiver
) -> None:
    desk, receiver.silent = Desk(device), True
    desk.leave(b"sealed")
    send(desk, receiver)
    receiver.silent = False
    send(desk, receiver)
    assert receiver.ids == [sha256_hex(b"sealed")] * 2
    assert desk.names() == ["sent.json"]


def test_wherever_the_agent_is_killed_while_it_sends_each_case_arrives_as_one(
    device: Device, receiver: Receiver
) -> None:
    desk, died = Desk(device), 0
    for left in range(60):
        sealed = [b"%d of %d" % (n, left) for n in range(3)]
        for one in sealed:
            desk.leave(one)
        receiver.ids.clear()
        try:
            captures = desk.captures(Mortal(left))
            captures.collect(WALL)
            captures.send(receiver.channel, "token", now=1e6, wall=WALL, root=ROOT)
        except Dies:
            died += 1
            send(desk, receiver)
        assert set(receiver.ids) == {sha256_hex(one) for one in sealed}, left
        assert desk.names() == ["sent.json"], left
    assert 10 < died < 60


def test_a_case_stays_until_its_owner_had_the_time_to_forget_it(
    device: Device, receiver: Receiver
) -> None:
    desk = Desk(device, hold_hours=24)
    for n in range(2):
        desk.leave(bytes([n]) * 100)
    now = time.time()
    send(desk, receiver, wall=now)
    send(desk, receiver, wall=now + 23 * 3600)
    send(desk, receiver, wall=now - 40 * 86_400)  # the clock was set back
    assert receiver.ids == []
    first, second = (k.case.id for k in kept(Disk(), device.layout))
    assert forget(Disk(), device.layout, {first}) == 1
    send(desk, receiver, wall=now + 25 * 3600)
    assert receiver.ids == [second]

"""An update that a real agent sends to a real server, over a line that dies, with either killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import httpx
import pytest

from pilotwave_agent.net.http import Channel, Unreachable
from pilotwave_agent.take_part.send_update import send_update
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.update import PIECE_BYTES, join_update
from pilotwave_protocol.manifest import TensorSpec
from pilotwave_server.db import Database
from pilotwave_server.settings import Settings
from tests.forking import forker
from tests.peers.thin_line import ThinLine
from tests.protocol.learning.models import any_classifier
from tests.server.device_api.peer import SimulatedDevice
from tests.server.device_api.test_crash import admin_of
from tests.server.fleet_fixtures import publish_all
from tests.server.killed import KilledServer, killed_server
from tests.server.learning.test_rounds import EXPERIMENTS, publish_plan
from tests.server.learning.wide import signed, wide_plan
from tests.server.registry.registry import Registry

pytestmark = pytest.mark.long

FEATURES = 480
ENOUGH = 1 << 40
HEADERS = 1500
"""More than a request has beside a piece, and the statement that begins anew."""


@dataclass
class Peer:
    """A server with an open round, and a device that has something to send."""

    server: KilledServer
    admin: httpx.Client
    cam: SimulatedDevice
    update: bytes

    def arrived(self) -> int:
        return int(self.admin.get(EXPERIMENTS).json()["items"][0]["round"]["devices"])


@pytest.fixture
def plan(db: Database, settings: Settings) -> TrainingPlan:
    registry = publish_all(Registry(db, settings.data_dir, lambda: datetime.now(timezone.utc)))
    embedding = TensorSpec("active", "float32", (-1, FEATURES))
    files = {"model.onnx": any_classifier(features=FEATURES)}
    registry.publish("detector", "2.0.0", files=files, outputs=(embedding,))
    plan = wide_plan(registry, FEATURES)
    publish_plan(registry, plan)
    return plan


@pytest.fixture
def peer(plan: TrainingPlan, settings: Settings, db: Database) -> Iterator[Peer]:
    with killed_server(settings) as server, admin_of(server, db) as admin:
        admin.post("/api/v1/groups", json={"name": "cams", "selector": "kind=cam"})
        labels = {"labels": {"kind": "cam"}}
        code = admin.post("/api/v1/enrolment-codes", json=labels).json()["items"][0]["code"]
        with httpx.Client(base_url=server.url, timeout=60) as line:
            cam = SimulatedDevice("cam-1", line)
            assert cam.enrol(code).status_code == 201
            assert cam.check_in().status_code == 200
            wanted = {"model": "detector", "plan": plan.plan, "group": "cams"}
            started = admin.post(EXPERIMENTS, json=wanted)
            assert started.status_code == 201, started.text
            yield Peer(server, admin, cam, join_update(*signed(plan, cam)))


def send(url: str, token: str, update: bytes) -> None:
    """Send as the agent does, at one check-in after the other."""
    channel = Channel(url, gap_s=5.0)
    try:
        while True:
            try:
                send_update(channel, token, update)
                return
            except Unreachable:
                time.sleep(0.02)
    finally:
        channel.close()


def test_a_line_that_dies_costs_a_piece_each_time(peer: Peer) -> None:
    line = ThinLine(peer.server.port, dies_after=150_000)
    try:
        send(line.url, peer.cam.token, peer.update)
    finally:
        line.close()
    assert peer.arrived() == 1
    assert line.cuts >= len(peer.update) // 150_000
    pieces = len(peer.update) // PIECE_BYTES + 1
    most = len(peer.update) + line.cuts * PIECE_BYTES
    assert line.sent <= most + HEADERS * (pieces + 2 * line.cuts + 1)


def test_a_server_killed_between_pieces_keeps_those_that_it_acknowledged(peer: Peer) -> None:
    line = ThinLine(peer.server.port, dies_after=ENOUGH)
    sender = threading.Thread(target=send, args=(line.url, peer.cam.token, peer.update))
    sender.start()
    kills = 0
    for share in (0.1, 0.3, 0.5, 0.7):
        until(lambda share=share: line.sent >= share * len(peer.update) or not sender.is_alive())
        peer.server.kill()
        kills += 1
        peer.server.start()
    sender.join(60)
    assert not sender.is_alive()
    line.close()
    assert peer.arrived() == 1
    pieces = len(peer.update) // PIECE_BYTES + 1
    # of each try while the server is away, the statement alone may be sent
    assert line.sent <= len(peer.update) + kills * PIECE_BYTES + HEADERS * (pieces + 100 * kills)


def test_a_device_killed_between_pieces_goes_on_behind_them(peer: Peer, tmp_path: Path) -> None:
    line = ThinLine(peer.server.port, dies_after=ENOUGH)
    kills = 0
    with forker(
        "pilotwave_agent.take_part.send_update", "tests.server.learning.test_thin_line"
    ) as f:
        for share in (0.15, 0.4, 0.65):
            pid = f.fork(send, line.url, peer.cam.token, peer.update)
            until(lambda share=share: line.sent >= share * len(peer.update))
            f.kill(pid)
            kills += 1
        assert peer.arrived() == 0
        assert f.wait(f.fork(send, line.url, peer.cam.token, peer.update)) == 0
    line.close()
    assert peer.arrived() == 1
    pieces = len(peer.update) // PIECE_BYTES + 1
    assert line.sent <= len(peer.update) + kills * PIECE_BYTES + HEADERS * (pieces + 2 * kills + 1)


def until(true: object) -> None:
    ends = time.monotonic() + 60
    while not true():  # type: ignore[operator]
        assert time.monotonic() < ends
        time.sleep(0.001)

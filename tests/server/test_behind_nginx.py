"""The server behind nginx on docker/front.conf.template: the same limits, and the same answers."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.peers.gateway import FRONT, NGINX, Gateway
from tests.server.device_api.peer import SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet, fleet, only_sqlite, published
from tests.servers import RunningServer

__all__ = ["fleet", "published"]
pytestmark = [only_sqlite, pytest.mark.skipif(not NGINX, reason="nginx is not installed")]
GET = "GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def front(server: RunningServer, tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(server.url, tmp_path / "nginx", template=FRONT)
    yield gateway
    gateway.stop()


def said(gateway: Gateway, raw: bytes) -> bytes:
    """What comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as line:
        got = b""
        with contextlib.suppress(ConnectionError):
            line.sendall(raw)
            while piece := line.recv(1 << 16):
                got += piece
        return got


def test_devices_and_operators_notice_nothing(front: Gateway, fleet: Fleet) -> None:
    with httpx.Client(base_url=front.url, timeout=30) as http:
        device = SimulatedDevice("cam-9", http)
        assert device.enrol(fleet.code()).status_code == 201
        assert device.check_in().status_code == 200
        assert device.poll().status_code in (200, 304)
        token = fleet.operator.headers["Authorization"]
        answer = http.get("/api/v1/devices", headers={"Authorization": token})
        assert [d["name"] for d in answer.json()["items"]] == ["cam-9"]


def test_large_heads_and_bodies_do_not_reach_the_server(front: Gateway) -> None:
    assert said(front, f"{GET}X: {'a' * 40_000}\r\n\r\n".encode()).startswith(b"HTTP/1.1 400")
    assert said(front, (GET + "X: " + "a" * 5000 + "\r\n").encode() * 20).startswith(b"HTTP/1.1 4")
    with httpx.Client(base_url=front.url, timeout=30) as http:
        assert http.post("/login", content=b"a" * 20_000).status_code == 413
        assert http.post("/device/v1/check-in", content=b"a" * 200_000).status_code == 413
        assert code_of(http.post("/device/v1/check-in", content=b"{}")) == (422, "bad_check_in")


def test_a_slow_head_is_closed_and_a_slow_body_costs_the_server_nothing(front: Gateway) -> None:
    began = time.monotonic()
    said(front, GET.encode())
    assert 5 < time.monotonic() - began < 25
    body = b"POST /device/v1/check-in HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    said(front, body)
    assert time.monotonic() - began < 50

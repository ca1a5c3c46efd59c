"""A real server, killed again and again while a case is on its way: what it acknowledged is stored,
and what is sent again is one case."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from pilotwave_protocol.digest import sha256_hex
from pilotwave_server.db import Database
from pilotwave_server.settings import Settings
from tests.server.device_api.peer import SimulatedDevice
from tests.server.device_api.test_captures import post, signed
from tests.server.device_api.test_crash import admin_of
from tests.server.fleet_fixtures import only_sqlite
from tests.server.killed import KilledServer, killed_server

pytestmark = [only_sqlite, pytest.mark.long]
KILLED_AFTER_S = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2)
SIZE = 300_000


@pytest.fixture
def server(settings: Settings) -> Iterator[KilledServer]:
    with killed_server(settings) as made:
        yield made


@pytest.fixture
def admin(server: KilledServer, db: Database) -> Iterator[httpx.Client]:
    with admin_of(server, db) as client:
        yield client


@pytest.fixture
def cam(server: KilledServer, admin: httpx.Client) -> Iterator[SimulatedDevice]:
    code = admin.post("/api/v1/enrolment-codes", json={}).json()["items"][0]["code"]
    with httpx.Client(base_url=server.url, timeout=60) as line:
        made = SimulatedDevice("cam-1", line)
        assert made.enrol(code).status_code == 201
        assert made.check_in().status_code == 200
        yield made


def stored(admin: httpx.Client) -> list[str]:
    """The digests of what is stored, each as often as it is there."""
    items = admin.get("/api/v1/captures", params={"limit": 500}).json()["items"]
    return sorted(item["case_id"] for item in items)


def test_what_was_acknowledged_outlives_any_kill_and_is_there_once(
    server: KilledServer, admin: httpx.Client, cam: SimulatedDevice
) -> None:
    acknowledged: set[str] = set()
    for after_s in KILLED_AFTER_S:
        sealed = os.urandom(SIZE)
        raw = signed(cam, sealed)
        answers: list[int] = []

        def send(raw: bytes = raw, answers: list[int] = answers) -> None:
            with contextlib.suppress(httpx.TransportError):
                answers.append(post(cam, raw).status_code)

        thread = threading.Thread(target=send)
        thread.start()
        time.sleep(after_s)
        server.kill()
        thread.join()
        server.start()
        if answers:
            assert answers == [204]
            acknowledged.add(sha256_hex(sealed))
        assert acknowledged <= set(stored(admin)), after_s
        assert post(cam, raw).status_code == 204  # the device sends it until it is acknowledged
        acknowledged.add(sha256_hex(sealed))
        assert stored(admin) == sorted(acknowledged), after_s


def test_half_a_case_is_none(
    server: KilledServer, admin: httpx.Client, cam: SimulatedDevice
) -> None:
    raw = signed(cam, os.urandom(SIZE))
    head = (
        f"POST /device/v1/captures HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {cam.token}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    for sent in (0, 1, len(raw) // 2, len(raw) - 1):
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.sendall(head.encode() + raw[:sent])
            time.sleep(0.05)
            server.kill()
        server.start()
        assert stored(admin) == [], sent
    assert post(cam, raw).status_code == 204
    assert len(stored(admin)) == 1

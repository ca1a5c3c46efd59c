"""A real server, killed again and again while devices check in: what it answered is stored."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone

import httpx
import pytest

from pilotwave_protocol.messages.check_in import DeviceEvent
from pilotwave_server.db import Database
from pilotwave_server.operators.roles import Role
from pilotwave_server.settings import Settings
from tests.conftest import issue_token
from tests.server.device_api.peer import SimulatedDevice, code_of
from tests.server.fleet_fixtures import only_sqlite
from tests.server.killed import KilledServer, killed_server

KILLS = 12
DEVICES = 4


@pytest.fixture
def server_process(settings: Settings) -> Iterator[KilledServer]:
    with killed_server(settings) as server:
        yield server


class Reporter:
    """A device that checks in without pause; `stored` is the newest event that was acknowledged."""

    def __init__(self, number: int, url: str) -> None:
        self.device = SimulatedDevice(f"cam-{number}", httpx.Client(base_url=url, timeout=60))
        self.events = self.acked = self.seq = 0

    def enrol(self, code: str) -> None:
        assert self.device.enrol(code).status_code == 201

    def report(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.events += 1
            news = tuple(
                DeviceEvent(number, datetime.now(timezone.utc), "detector", "fetched", "1.0.0")
                for number in range(self.acked + 1, self.events + 1)
            )
            with contextlib.suppress(httpx.TransportError):
                answer = self.device.check_in(events=news[:40])
                assert answer.status_code == 200, answer.text
                self.acked, self.seq = answer.json()["acked_event"], self.device.seq
                assert self.acked >= news[0].id


@only_sqlite
def test_a_report_that_was_answered_outlives_any_kill(
    server_process: KilledServer, settings: Settings, db: Database
) -> None:
    server, luck = server_process, random.Random(20260131)
    reporters = [Reporter(number, server.url) for number in range(DEVICES)]
    with admin_of(server, db) as admin, contextlib.ExitStack() as lines:
        for reporter in reporters:
            lines.enter_context(reporter.device.http)
        kill_while_they_report(server, admin, reporters, luck)
        for reporter in reporters:
            stored = events_of(admin, reporter.device.name)
            assert stored >= set(range(1, reporter.acked + 1)), (reporter.acked, sorted(stored))
    assert sum(r.acked for r in reporters) >= KILLS


def admin_of(server: KilledServer, db: Database) -> httpx.Client:
    token = issue_token(db, Role.ADMIN, now=datetime.now(timezone.utc))
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60)


def events_of(admin: httpx.Client, device: str) -> set[int]:
    """Return the numbers of all events that are stored of a device."""
    stored: set[int] = set()
    more: dict[str, str] = {}
    while True:
        page = admin.get(f"/api/v1/devices/{device}/events", params={"limit": 500, **more}).json()
        stored |= {item["number"] for item in page["items"]}
        if not page["next_cursor"]:
            return stored
        more = {"cursor": page["next_cursor"]}


def wait_for_an_answer(reporters: list[Reporter]) -> None:
    """Let the server answer at least one report before it is killed, however slow it is."""
    before, ends = sum(r.acked for r in reporters), time.monotonic() + 60
    while sum(r.acked for r in reporters) == before:
        assert time.monotonic() < ends
        time.sleep(0.01)


def kill_while_they_report(
    server: KilledServer, admin: httpx.Client, reporters: list[Reporter], luck: random.Random
) -> None:
    codes = admin.post("/api/v1/enrolment-codes", json={"count": DEVICES}).json()["items"]
    for reporter, code in zip(reporters, codes, strict=True):
        reporter.enrol(code["code"])
    for _ in range(KILLS):
        stop = threading.Event()
        threads = [threading.Thread(target=r.report, args=(stop,)) for r in reporters]
        for thread in threads:
            thread.start()
        wait_for_an_answer(reporters)
        stop.wait(luck.uniform(0, 0.4))
        server.kill()
        stop.set()
        for thread in threads:
            thread.join()
        server.start()
        for reporter in reporters:
            if reporter.seq:  # the number is known: the same report once more is a replay
                reporter.device.seq = reporter.seq - 1
                answer = reporter.device.check_in()
                assert code_of(answer) == (409, "stale_seq")
                reporter.device.seq = answer.json()["last_seq"]

"""The stream of events over HTTP: live, resumed, by many, by slow ones, over several servers."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pilotwave_protocol.messages.check_in import Installed, ModelReport
from pilotwave_protocol.states import ModelState
from pilotwave_server.app import create_app
from pilotwave_server.audit.service import record
from pilotwave_server.db import Database
from pilotwave_server.events import hub, routes
from pilotwave_server.settings import Settings
from tests.conftest import FakeClock, token_client
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.servers import RunningServer, run_in_thread

STREAM = "/api/v1/events/stream"
HEALTHY = ModelReport("detector", ModelState.HEALTHY, Installed("1.0.0", "a" * 64, "onnx-fp32", 1))


class Listening:
    """A client that reads a stream on a thread of its own."""

    def __init__(self, client: httpx.Client, **query: Any) -> None:
        self.places: list[str] = []
        self.events: queue.Queue[Any] = queue.Queue()
        self.ended = threading.Event()
        self._client = client
        self._query = query
        self._begun = threading.Event()
        self._answer: httpx.Response | None = None
        threading.Thread(target=self._read, daemon=True).start()
        assert self._begun.wait(30)

    def _read(self) -> None:
        try:
            with self._client.stream("GET", STREAM, timeout=30, **self._query) as answer:
                self._answer = answer
                assert answer.status_code == 200, answer.read()
                assert answer.headers["content-type"].startswith("text/event-stream")
                for line in answer.iter_lines():
                    self._take(line)
        except (httpx.HTTPError, httpx.StreamError, OSError):
            pass
        finally:
            self.ended.set()

    def _take(self, line: str) -> None:
        name, _, value = line.partition(": ")
        if name == "id":
            self.places.append(value)
            self._begun.set()
        elif name == "data":
            self.events.put(json.loads(value))

    def next(self, timeout_s: float = 30) -> Any:
        return self.events.get(timeout=timeout_s)

    def quiet(self, seconds: float = 0.8) -> bool:
        try:
            self.events.get(timeout=seconds)
        except queue.Empty:
            return True
        return False


def make_token(admin: httpx.Client, name: str) -> None:
    answer = admin.post("/api/v1/tokens", json={"name": name, "role": "viewer"})
    assert answer.status_code == 201, answer.text


@contextlib.contextmanager
def client_for(server: RunningServer, token: str) -> Iterator[httpx.Client]:
    with token_client(server, token) as client:
        yield client


def test_a_listener_is_told_of_what_happens_and_of_no_type_it_did_not_ask_for(
    admin: httpx.Client, viewer: httpx.Client
) -> None:
    listening = Listening(viewer, params={"type": ["token.*", "group.create"]})
    make_token(admin, "ci")
    admin.post("/api/v1/models", json={"name": "m", "publishers": []})
    admin.post("/api/v1/groups", json={"name": "cams", "selector": "site"})
    seen = {}
    while "group/cams" not in seen:
        event = listening.next()
        seen[event["data"]["object"]] = event
    assert seen["token/ci"]["type"] == "token.create"
    assert seen["token/ci"]["data"]["actor"] == "token/test-admin"
    assert {e["type"] for e in seen.values()} == {"token.create", "group.create"}


def test_what_became_of_a_version_on_a_device_is_an_event(
    fleet: Fleet, viewer: httpx.Client
) -> None:
    device = fleet.device("cam-1")
    listening = Listening(viewer, params={"type": "device.healthy"})
    assert device.check_in(HEALTHY).status_code == 200
    event = listening.next()
    assert event["data"]["object"] == "device/cam-1"
    assert event["data"]["after"] == {"model": "detector", "version": "1.0.0", "reason": None}
    assert listening.quiet()


def test_whoever_comes_back_is_sent_everything_since_and_nothing_twice(
    admin: httpx.Client, viewer: httpx.Client
) -> None:
    first = Listening(viewer, params={"type": "token.*"})
    make_token(admin, "before")
    while first.next()["data"]["object"] != "token/before":
        pass
    place = first.places[-1]
    for name in ("a", "b", "c"):
        make_token(admin, name)
    again = Listening(viewer, params={"type": "token.*"}, headers={"Last-Event-ID": place})
    assert [again.next()["data"]["object"] for _ in "abc"] == ["token/a", "token/b", "token/c"]
    assert again.quiet()


def test_it_may_begin_at_the_beginning(admin: httpx.Client, viewer: httpx.Client) -> None:
    for number in range(3):
        make_token(admin, f"old-{number}")
    listening = Listening(viewer, params={"type": "token.create", "after": "0.0"})
    seen = [listening.next()["data"]["object"] for _ in range(5)]
    assert seen[2:] == [f"token/old-{number}" for number in range(3)]


def test_a_listener_at_another_server_of_the_fleet_is_told_too(
    admin: httpx.Client, viewer_token: str, settings: Settings, clock: FakeClock
) -> None:
    other = run_in_thread(create_app(settings, clock=clock))
    with other as running, client_for(running, viewer_token) as client:
        listening = Listening(client, params={"type": "token.*"})
        make_token(admin, "ci")
        while listening.next()["data"]["object"] != "token/ci":
            pass


def write_events(db: Database, clock: FakeClock, count: int, verb: str = "delta.made") -> None:
    with db.write() as session:
        for number in range(count):
            record(session, actor="server", verb=verb, object=f"test/{number}", now=clock())


@only_sqlite
def test_many_listeners_are_told_each(
    server: RunningServer, viewer_token: str, db: Database, clock: FakeClock
) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_for(server, viewer_token)) for _ in range(50)]
        listeners = [Listening(client, params={"type": "delta.*"}) for client in clients]
        write_events(db, clock, 20)
        for listening in listeners:
            seen = [listening.next()["data"]["object"] for _ in range(20)]
            assert seen == [f"test/{n}" for n in range(20)]


@only_sqlite
def test_a_slow_listener_falls_back_on_the_database_and_loses_nothing(
    viewer: httpx.Client, db: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more than memory keeps and a socket holds, written while it does not read."""
    monkeypatch.setattr(hub, "KEPT", 50)
    monkeypatch.setattr(hub, "PAGE", 20)
    count = 4000
    with viewer.stream("GET", STREAM, params={"type": "delta.*"}, timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("retry:")
        for part in range(8):
            with db.write() as session:
                for number in range(count // 8):
                    record(
                        session,
                        actor="server",
                        verb="delta.made",
                        object=f"test/{part * count // 8 + number}",
                        now=clock(),
                        after={"filler": "x" * 2000},
                    )
            time.sleep(0.3)
        seen = []
        for line in lines:
            if line.startswith("data: "):
                seen.append(json.loads(line[6:])["data"]["object"])
            if len(seen) == count:
                break
    assert seen == [f"test/{n}" for n in range(count)]


@only_sqlite
def test_a_quiet_stream_says_its_place_now_and_then(
    viewer: httpx.Client, db: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that whoever filters comes back to where it was, not to where it last saw something."""
    monkeypatch.setattr(routes, "QUIET_S", 0.3)
    listening = Listening(viewer, params={"type": "rollout.*"})
    before = listening.places[0]
    write_events(db, clock, 3)
    ends = time.monotonic() + 30
    while listening.places[-1] == before:
        assert time.monotonic() < ends
        time.sleep(0.05)
    assert listening.events.empty()


@only_sqlite
def test_the_stream_ends_when_its_token_does(
    server: RunningServer,
    admin: httpx.Client,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "QUIET_S", 0.3)
    made = admin.post("/api/v1/tokens", json={"name": "guest", "role": "viewer"}).json()
    with client_for(server, made["token"]) as client:
        listening = Listening(client)
        admin.delete(f"/api/v1/tokens/{made['id']}")
        assert listening.ended.wait(30)


@only_sqlite
def test_no_stream_without_a_token_nor_for_a_device(
    client: httpx.Client, fleet: Fleet, viewer: httpx.Client
) -> None:
    assert client.get(STREAM).status_code == 401
    device = fleet.device("cam-1")
    assert (
        client.get(STREAM, headers={"Authorization": f"Bearer {device.token}"}).status_code == 401
    )


BAD = [
    ({"headers": {"Last-Event-ID": "nonsense"}}, "bad_event_cursor"),
    ({"headers": {"Last-Event-ID": "-1.0"}}, "bad_event_cursor"),
    ({"headers": {"Last-Event-ID": "999999999.0"}}, "bad_event_cursor"),
    ({"params": {"after": "1.2.3"}}, "bad_event_cursor"),
    ({"params": {"type": "Rollout"}}, "bad_event_type"),
    ({"params": {"type": ["rollout.*"] * 33}}, "bad_event_type"),
]


@only_sqlite
@pytest.mark.parametrize(("asked", "code"), BAD)
def test_what_is_no_place_and_no_type_is_refused(
    viewer: httpx.Client, asked: dict[str, Any], code: str
) -> None:
    answer = viewer.get(STREAM, **asked)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


@only_sqlite
def test_beyond_the_most_listeners_it_says_come_back(
    viewer: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MAX_LISTENERS", 1)
    Listening(viewer)
    answer = viewer.get(STREAM)
    assert (answer.status_code, answer.json()["code"]) == (503, "too_many_listeners")
    assert answer.headers["retry-after"]


def test_open_streams_do_not_hold_up_the_servers_end(server_factory: Any) -> None:
    server = server_factory()
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        listening = Listening(client)
        began = time.monotonic()
        server.stop()
        assert listening.ended.wait(10)
    assert time.monotonic() - began < 8

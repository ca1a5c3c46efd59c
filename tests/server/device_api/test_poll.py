"""The poll: what a device is told, when it is told nothing, and what that costs."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
from sqlalchemy import event

from pilotwave_protocol import dsse, signing
from pilotwave_protocol.manifest import Requires
from pilotwave_protocol.messages.directive import (
    DIRECTIVE_TYPE,
    MAX_DIRECTIVE_BYTES,
    parse_directive,
)
from pilotwave_server.app import create_app
from pilotwave_server.context import Context
from pilotwave_server.db import Database
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.settings import Settings
from tests.server.device_api.peer import ONNX, SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.registry.offline import director_of
from tests.server.registry.registry import onnx
from tests.servers import RunningServer, run_in_thread


@contextmanager
def counted_statements(db: Database) -> Iterator[list[str]]:
    """Collects every statement that the server's engines send."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    engines = {id(e.pool): e for e in (db.reader, db.writer)}.values()
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


def test_directive_is_signed_and_says_everything(
    fleet: Fleet, context: Context, clock: Any
) -> None:
    cam = fleet.device(site="berlin")
    fleet.group("berlin", "site=berlin")
    fleet.assign("berlin", "1.1.0")
    answer = cam.poll()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    director = context.get(TrustStore).state.director
    payload = dsse.open_envelope(
        answer.content,
        payload_type=DIRECTIVE_TYPE,
        keys=director.keys,
        max_bytes=MAX_DIRECTIVE_BYTES,
    )
    directive = parse_directive(payload)
    assert (directive.fleet, directive.device) == ("test-fleet", "cam-1")
    assert (directive.issued, directive.min_snapshot) == (clock(), 5)
    assert (directive.expires - directive.issued).days == 7
    manifest = fleet.registry.role("detector").signed.targets["models/detector/1.1.0.json"]
    (entry,) = directive.entries
    assert (entry.model, entry.version, entry.counter) == ("detector", "1.1.0", 2)
    assert (entry.variant, entry.reason, entry.attempt) == ("onnx-fp32", "baseline", 0)
    assert (entry.sha256, entry.length) == (manifest.hashes["sha256"], manifest.length)


def test_unchanged_directive_costs_no_statement(fleet: Fleet, context: Context) -> None:
    cam = fleet.device()
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    assert cam.poll().status_code == 200
    for worker in context.workers:  # some ask for news twice a second
        worker.stop()
    with counted_statements(context.db) as statements:
        for _ in range(5):
            answer = cam.poll()
            assert (answer.status_code, answer.content) == (304, b"")
    assert statements == []
    assert answer.headers["pilotwave-tuf"] == "1.5"


@only_sqlite
def test_idle_poll_takes_at_most_600_bytes(fleet: Fleet, server: RunningServer) -> None:
    cam = fleet.device("gateway-0017-munich-north")
    cam.poll()
    place = urlsplit(server.url)
    request = (
        "GET /device/v1/directive HTTP/1.1\r\nHost: pilotwave.example.org:8600\r\n"
        f"Authorization: Bearer {cam.token}\r\nIf-None-Match: {cam.etag}\r\n"
        "Accept-Encoding: identity\r\nUser-Agent: pilotwave-agent/0.1.0\r\n\r\n"
    ).encode()
    assert place.hostname
    with socket.create_connection((place.hostname, place.port or 0)) as connection:
        connection.sendall(request)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 304")
    assert len(request) + len(answer) <= 600


def test_operators_change_shows_at_the_next_poll(fleet: Fleet) -> None:
    cam = fleet.device(site="berlin")
    fleet.group("berlin", "site=berlin")
    assert cam.runs() == {}
    fleet.assign("berlin", "1.0.0")
    assert cam.poll().status_code == 200
    assert cam.runs() == {"detector": "1.0.0"}
    fleet.assign("berlin", "1.1.0")
    assert cam.runs() == {"detector": "1.1.0"}
    fleet.deny("1.1.0")
    assert cam.runs() == {"detector": "1.0.0"}
    labels = {"labels": {"site": "paris"}}
    assert fleet.operator.patch("/api/v1/devices/cam-1", json=labels).status_code == 200
    assert cam.runs() == {}


def test_a_fact_that_a_version_asks_for_by_name_decides_from_then_on(
    fleet: Fleet, context: Context
) -> None:
    """The device was seen, and its fact kept for nothing, before a version asked for it."""
    cam, old = fleet.device(), fleet.device("cam-2")
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    cam.check_in(facts={**ONNX, "agent.manifest": 2, "app": "2.4.1"})
    assert cam.runs() == old.runs() == {"detector": "1.0.0"}
    asks = Requires(facts={"app": ">=2.1,<3"})
    fleet.registry.publish("detector", "1.3.0", requires=asks)
    context.get(FleetState).refresh()
    told = fleet.assign("all", "1.3.0")
    assert (told["devices"], told["fits"]) == (2, 1)
    assert told["holds"] == {"agent_too_old": 1}
    assert cam.runs() == {"detector": "1.3.0"}
    assert old.runs() == {"detector": "1.0.0"}
    cam.check_in(facts={**ONNX, "agent.manifest": 2, "app": "3.0"})
    assert cam.runs() == {"detector": "1.0.0"}
    why = fleet.operator.get("/api/v1/devices/cam-1/why?model=detector").json()
    assert "needs app >=2.1,<3; here it is 3.0" in str(why)


def test_yank_by_the_publisher_shows_too(fleet: Fleet, context: Context) -> None:
    cam = fleet.device()
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    fleet.assign("all", "1.1.0")
    fleet.registry.yank("detector", "1.1.0")
    context.get(FleetState).refresh()
    assert cam.runs() == {"detector": "1.0.0"}


@only_sqlite
def test_change_that_concerns_others_still_ends_in_304(fleet: Fleet) -> None:
    cam = fleet.device(site="berlin")
    fleet.group("berlin", "site=berlin")
    fleet.group("paris", "site=paris")
    fleet.assign("berlin", "1.0.0")
    cam.poll()
    fleet.assign("paris", "1.1.0")
    fleet.device("cam-2", site="paris")
    assert cam.poll().status_code == 304


@only_sqlite
def test_directive_is_renewed_at_half_its_life_with_the_same_set(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    first = cam.directive()
    etag, statuses = cam.etag, []
    for _ in range(7):
        clock.advance(hours=12)
        assert cam.check_in().status_code == 200
        statuses.append(cam.poll().status_code)
    assert sorted(statuses) == [200] + [304] * 6
    assert cam.etag != etag
    renewed = cam.directive()
    assert (renewed.seq, renewed.set_digest) == (first.seq, first.set_digest)
    assert renewed.issued > first.issued


@only_sqlite
def test_fleet_does_not_renew_all_at_once(fleet: Fleet, clock: Any) -> None:
    cams = [SimulatedDevice(f"cam-{n}", fleet.client) for n in range(20)]
    for cam in cams:
        cam.enrol(fleet.code())
        cam.check_in()
        cam.poll()
    renewed = []
    for _ in range(7):
        clock.advance(hours=12)
        for cam in cams:
            cam.check_in()
        renewed.append(sum(cam.poll().status_code == 200 for cam in cams))
    assert sum(renewed) == 20
    assert max(renewed) <= 10


BAD_TOKENS = [
    "",
    "Bearer",
    "Bearer x",
    "Basic eDp4",
    "Bearer " + "a." * 5000,
    "Bearer é",
]


@only_sqlite
def test_without_a_good_token_there_is_no_directive(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    for authorization in BAD_TOKENS:
        headers = {"Authorization": authorization.encode("latin-1")}
        answer = fleet.client.get("/device/v1/directive", headers=headers)
        assert code_of(answer) == (401, "bad_token"), authorization
    assert code_of(fleet.client.get("/device/v1/directive")) == (401, "bad_token")
    clock.advance(seconds=900)
    assert code_of(cam.poll()) == (401, "expired_token")
    operators = fleet.operator.get("/device/v1/directive")
    assert code_of(operators) == (401, "bad_token")


@only_sqlite
def test_token_is_worth_nothing_for_operators_routes(fleet: Fleet) -> None:
    cam = fleet.device()
    bearer = {"Authorization": f"Bearer {cam.token}"}
    assert fleet.client.get("/api/v1/devices", headers=bearer).status_code == 401


@only_sqlite
def test_old_token_works_beside_the_new_one_until_it_expires(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    old = cam.token
    clock.advance(seconds=600)
    cam.check_in()
    new = cam.token
    for token in (old, new, old, new):
        cam.token = token
        assert cam.poll().status_code in (200, 304)
    clock.advance(seconds=301)
    cam.token = old
    assert code_of(cam.poll()) == (401, "expired_token")
    cam.token = new
    assert cam.poll().status_code == 304


@only_sqlite
def test_other_methods_and_paths_are_left_to_the_rest_of_the_server(fleet: Fleet) -> None:
    assert fleet.client.post("/device/v1/directive").status_code == 405
    assert fleet.client.get("/device/v1/check-in").status_code == 405
    assert fleet.client.get("/device/v1/directive/").status_code == 404
    assert fleet.client.get("/device/v1/other").status_code == 404


@only_sqlite
def test_device_may_read_the_blobs_of_what_it_is_told_to_run_and_no_others(fleet: Fleet) -> None:
    cam = fleet.device()
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    bearer = {"Authorization": f"Bearer {cam.token}"}
    for version, status in (("1.0.0", 200), ("1.1.0", 403)):
        blob = fleet.registry.blobs.put(onnx(f"detector {version}"))
        answer = fleet.client.get(f"/blobs/{blob}", headers=bearer)
        assert answer.status_code == status, answer.text
    assert answer.json()["code"] == "blob_denied"
    fleet.assign("all", "1.1.0")
    assert fleet.client.get(f"/blobs/{blob}", headers=bearer).status_code == 200
    fleet.act("cam-1", "revoke")
    assert code_of(fleet.client.get(f"/blobs/{blob}", headers=bearer)) == (401, "revoked")


def test_server_process_learns_within_a_second_what_another_changed(
    fleet: Fleet, settings: Settings, clock: Any
) -> None:
    cam = fleet.device(site="berlin")
    fleet.group("berlin", "site=berlin")
    app = create_app(settings, clock=clock)
    with run_in_thread(app) as other, fleet.client.__class__(base_url=other.url) as http:
        there = SimulatedDevice("cam-1", http, key=cam.key, token=cam.token)
        assert there.runs() == {}
        fleet.assign("berlin", "1.0.0")
        wait_until(lambda: there.runs() == {"detector": "1.0.0"})
        fleet.act("cam-1", "revoke")
        wait_until(lambda: there.poll().status_code == 401)


def wait_until(condition: Any, *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def test_poll_is_seen_at_once_and_written_down_later(
    fleet: Fleet, context: Context, clock: Any, db: Database
) -> None:
    cam = fleet.device()
    clock.advance(seconds=100)
    cam.poll()
    seen = fleet.operator.get("/api/v1/devices/cam-1").json()["last_seen"]
    assert seen == "2026-01-31T09:31:40Z"
    for worker in context.workers:  # one of them writes what was noted
        worker.stop()
    context.get(FleetState).records.clear()
    stored = fleet.operator.get("/api/v1/devices").json()["items"][0]
    assert stored["last_seen"] == "2026-01-31T09:31:40Z"
    assert stored["last_check_in"] == "2026-01-31T09:30:00Z"


@only_sqlite
def test_server_without_a_root_of_trust_says_what_is_missing(
    client: Any, operator: Any, clock: Any
) -> None:
    made = operator.post("/api/v1/enrolment-codes", json={}).json()["items"][0]["code"]
    cam = SimulatedDevice("cam-1", client)
    assert cam.enrol(made).status_code == 201
    assert cam.check_in().status_code == 200
    answer = cam.poll()
    assert code_of(answer) == (503, "not_bootstrapped")
    assert "pilotwave keys init" in answer.json()["detail"]


@only_sqlite
def test_new_director_key_is_used_at_the_next_poll(
    fleet: Fleet, context: Context, clock: Any
) -> None:
    cam = fleet.device()
    before = cam.directive()
    with context.db.write() as session:
        staged = context.get(TrustStore).stage("director", session)
    offline, registry = fleet.registry.offline, fleet.registry
    targets = offline.next_targets(registry.targets())
    signing.set_director(targets.signed, director_of("test-fleet", [staged.raw.hex()]))
    registry.submit(targets=offline.sign_targets(targets))
    context.get(FleetState).refresh()
    answer = cam.poll()
    assert answer.status_code == 200
    claimed = dsse.peek_unverified(
        answer.content, payload_type=DIRECTIVE_TYPE, max_bytes=MAX_DIRECTIVE_BYTES
    )
    assert [s.keyid for s in claimed.signatures] == [staged.director_keyid]
    assert parse_directive(claimed.payload).set_digest == before.set_digest


def test_seq_rises_with_each_change_that_concerns_the_device(fleet: Fleet) -> None:
    cam = fleet.device()
    fleet.group("all", "*")
    changes: list[Callable[[], Any]] = [
        lambda: fleet.assign("all", "1.0.0"),
        lambda: fleet.act("cam-1", "models/detector/pin", version="1.1.0", reason="try it"),
        lambda: fleet.operator.delete("/api/v1/devices/cam-1/models/detector/pin"),
        lambda: fleet.operator.patch("/api/v1/devices/cam-1", json={"labels": {"a": "b"}}),
        lambda: fleet.act("cam-1", "models/detector/retry"),
        lambda: fleet.deny("1.0.0"),
    ]
    seqs = [cam.directive().seq]
    for change in changes:
        change()
        seqs.append(cam.directive().seq)
    assert seqs == sorted(set(seqs))


REFUSAL = {"reason": "directive_replayed", "detail": "expected seq 90 or later; got 20"}


def test_a_refused_set_is_offered_again_with_each_number_and_no_other_is(
    fleet: Fleet, context: Context
) -> None:
    """A set is refused for its number, too (after a restore); that number is not the set's."""
    cam, well = fleet.device(), fleet.device("cam-2")
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    fleet.group("elsewhere", "site=nowhere")
    for device in (cam, well):
        assert device.poll().status_code == 200
        assert device.poll().status_code == 304
    cam.check_in(refusal=REFUSAL)
    assert cam.poll().status_code == 200, "the number became part of what it is asked about"
    assert [cam.poll().status_code for _ in range(3)] == [304] * 3
    for version in ("1.0.0", "1.1.0"):
        fleet.assign("elsewhere", version)
        assert well.poll().status_code == 304
        assert cam.poll().status_code == 200
        assert [cam.poll().status_code for _ in range(3)] == [304] * 3
    cam.check_in(refusal=None)
    assert cam.poll().status_code == 304, "it has that very set"
    fleet.assign("elsewhere", "1.0.0")
    assert [cam.poll().status_code for _ in range(3)][1:] == [304] * 2
    fleet.assign("elsewhere", "1.1.0")
    assert cam.poll().status_code == 304


def test_processes_that_heard_of_a_refusal_or_not_tell_one_device_the_same(
    fleet: Fleet, settings: Settings, clock: Any
) -> None:
    fleet.group("all", "*")
    fleet.assign("all", "1.0.0")
    cam = fleet.device()
    cam.poll()
    app = create_app(settings, clock=clock)
    with run_in_thread(app) as other, httpx.Client(base_url=other.url) as http:
        there = SimulatedDevice(cam.name, http, key=cam.key, token=cam.token, etag=cam.etag)
        assert there.poll().status_code == 304
        cam.check_in(refusal=REFUSAL)
        there.token = cam.token
        assert cam.poll().status_code == 200
        held = cam.etag
        for _ in range(3):
            there.etag = cam.etag = held
            assert (there.poll().status_code, cam.poll().status_code) == (304, 304)

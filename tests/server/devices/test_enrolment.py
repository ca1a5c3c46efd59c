"""How devices join, over HTTP, on both databases."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from pilotwave_protocol import dsse
from pilotwave_protocol.messages.enrol import ENROL_TYPE, Enrol
from pilotwave_server.devices.tables import PRIME, DeviceRow
from tests.server.device_api.peer import SimulatedDevice, code_of
from tests.server.fleet_fixtures import Fleet, only_sqlite


@pytest.fixture
def cam(fleet: Fleet) -> SimulatedDevice:
    return SimulatedDevice("cam-1", fleet.client)


def test_device_with_a_code_is_in_at_once_with_the_codes_labels(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    answer = cam.enrol(fleet.code(labels={"site": "berlin"}))
    assert answer.status_code == 201
    assert answer.json() == {
        "device": "cam-1",
        "state": "enrolled",
        "fleet": "test-fleet",
        "poll_interval_s": 60,
        "check_in_interval_s": 900,
    }
    found = fleet.operator.get("/api/v1/devices/cam-1").json()
    assert (found["state"], found["labels"]) == ("enrolled", {"site": "berlin"})
    assert found["facts"] == cam.facts
    assert found["keyid"] == dsse.keyid(cam.key.public_key())


@only_sqlite
def test_code_is_read_however_it_is_typed(fleet: Fleet, cam: SimulatedDevice) -> None:
    assert cam.enrol(fleet.code().lower().replace("-", " ")).status_code == 201


def test_repeating_the_same_enrolment_changes_nothing(fleet: Fleet, cam: SimulatedDevice) -> None:
    code = fleet.code()
    cam.enrol(code)
    again = cam.enrol(code)
    assert (again.status_code, again.json()["state"]) == (200, "enrolled")


def test_bad_used_expired_revoked_and_foreign_codes_are_answered_alike(
    fleet: Fleet, clock: Any
) -> None:
    used, old, revoked = fleet.code(), fleet.code(expires_in_s=60), fleet.code()
    newest = fleet.operator.get("/api/v1/enrolment-codes").json()["items"][0]["id"]
    assert fleet.operator.delete(f"/api/v1/enrolment-codes/{newest}").status_code == 204
    foreign = fleet.code(device="cam-2")
    SimulatedDevice("cam-0", fleet.client).enrol(used)
    clock.advance(seconds=61)
    answers = [
        SimulatedDevice("cam-1", fleet.client).enrol(code)
        for code in ("no-such-code", "", used, old, revoked, foreign)
    ]
    assert {code_of(a) for a in answers} == {(403, "bad_code")}
    assert len({a.text for a in answers}) == 1
    assert fleet.operator.get("/api/v1/devices/cam-1").status_code == 404


def test_code_for_one_name_lets_that_name_in(fleet: Fleet, cam: SimulatedDevice) -> None:
    assert cam.enrol(fleet.code(device="cam-1")).status_code == 201


def test_of_many_devices_with_one_code_exactly_one_gets_in(fleet: Fleet) -> None:
    code = fleet.code()
    devices = [SimulatedDevice(f"cam-{n}", fleet.client) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(a.status_code for a in pool.map(lambda d: d.enrol(code), devices))
    assert statuses == [201] + [403] * 7


def test_of_many_keys_that_want_one_name_exactly_one_gets_it(fleet: Fleet) -> None:
    devices = [SimulatedDevice("cam-1", fleet.client) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda d: d.enrol(), devices))
    assert sorted(a.status_code for a in answers) == [201] + [409] * 7
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"name_taken"}


def test_device_without_a_code_waits_until_it_is_accepted(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    assert cam.enrol().json()["state"] == "pending"
    assert cam.enrol().json()["state"] == "pending"
    assert code_of(cam.check_in()) == (403, "pending")
    assert fleet.act("cam-1", "accept").json()["state"] == "enrolled"
    assert cam.check_in().status_code == 200


def test_waiting_device_may_still_use_a_code(fleet: Fleet, cam: SimulatedDevice) -> None:
    cam.enrol()
    assert cam.enrol(fleet.code()).json()["state"] == "enrolled"
    assert cam.check_in().status_code == 200


def test_rejected_device_is_forgotten_and_may_ask_again(fleet: Fleet, cam: SimulatedDevice) -> None:
    cam.enrol()
    cam.check_in()
    assert fleet.act("cam-1", "reject").status_code == 204
    assert code_of(cam.check_in()) == (401, "unknown_device")
    assert cam.enrol().status_code == 201


def test_name_of_an_enrolled_device_is_taken_even_for_who_has_a_code(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    cam.enrol(fleet.code())
    other = SimulatedDevice("cam-1", fleet.client)
    assert code_of(other.enrol(fleet.code())) == (409, "name_taken")
    assert cam.check_in().status_code == 200


def test_who_waits_for_a_name_does_not_keep_a_code_from_it(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    squatter = SimulatedDevice("cam-1", fleet.client)
    squatter.enrol()
    assert code_of(cam.enrol()) == (409, "name_taken")
    assert cam.enrol(fleet.code()).status_code == 201
    assert cam.check_in().status_code == 200
    assert code_of(squatter.check_in()) == (401, "bad_signature")


@only_sqlite
def test_envelope_of_another_key_than_the_one_named_is_refused(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    wish = Enrol("cam-1", SimulatedDevice("x", fleet.client).public_key, fleet.code(), {})
    raw = dsse.sign(ENROL_TYPE, wish.to_bytes(), cam.key)
    assert code_of(cam.post("/device/v1/enrol", raw)) == (401, "bad_signature")


BAD_WISHES: list[dict[str, Any]] = [
    {"name": "Cam 1"},
    {"name": "../cam"},
    {"public_key": "00"},
    {"public_key": "zz" * 32},
    {"facts": {"Bad Key": 1}},
    {"facts": {"a": [1]}},
    {"facts": {"a": "line\nbreak"}},
    {"more": 1},
    {"schema": "pilotwave/enrol/2"},
    {"code": 5},
]


@only_sqlite
def test_wish_outside_the_protocol_is_refused_with_a_sentence(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    for change in BAD_WISHES:
        answer = cam.enrol(**change)
        assert code_of(answer) == (422, "bad_enrolment"), change
        detail = answer.json()["detail"]
        assert "expected" in detail or "unknown field" in detail
    assert fleet.operator.get("/api/v1/devices").json()["items"] == []


@only_sqlite
def test_body_over_the_limit_is_refused(fleet: Fleet, cam: SimulatedDevice) -> None:
    raw = b'{"payload": "' + b"A" * 20_000 + b'"}'
    assert code_of(cam.post("/device/v1/enrol", raw)) == (413, "body_too_large")


def test_revoked_key_never_comes_back_but_the_name_does_with_a_code(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    cam.enrol(fleet.code(labels={"site": "berlin"}))
    cam.check_in()
    assert fleet.act("cam-1", "revoke").json()["state"] == "revoked"
    assert code_of(cam.poll()) == (401, "revoked")
    assert code_of(cam.check_in()) == (401, "revoked")
    assert code_of(cam.enrol(fleet.code())) == (403, "key_revoked")
    old_token, cam.key, cam.seq = cam.token, Ed25519PrivateKey.generate(), 0
    assert code_of(cam.enrol()) == (409, "name_taken")
    assert cam.enrol(fleet.code(device="cam-1")).status_code == 201
    assert cam.check_in().status_code == 200
    assert cam.poll().status_code == 200
    cam.token = old_token
    assert code_of(cam.poll()) == (401, "revoked")


def test_code_for_any_name_does_not_buy_the_labels_of_who_had_the_name(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    for code, labels in (({}, {}), ({"device": "cam-1"}, {"site": "berlin"})):
        cam.key = Ed25519PrivateKey.generate()
        cam.enrol(fleet.code(device="cam-1", labels={"site": "berlin"}))
        fleet.act("cam-1", "decommission")
        cam.key = Ed25519PrivateKey.generate()
        assert cam.enrol(fleet.code(**code)).status_code == 201
        assert fleet.operator.get("/api/v1/devices/cam-1").json()["labels"] == labels
        fleet.act("cam-1", "decommission")


def test_decommissioned_device_comes_back_with_its_key_and_a_code(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    cam.enrol(fleet.code())
    cam.check_in()
    fleet.act("cam-1", "decommission")
    assert code_of(cam.check_in()) == (401, "revoked")
    assert cam.enrol().json()["state"] == "decommissioned"
    assert cam.enrol(fleet.code()).json()["state"] == "enrolled"
    assert cam.check_in().status_code == 200


def test_codes_are_shown_once_and_kept_as_digests(fleet: Fleet) -> None:
    made = fleet.operator.post(
        "/api/v1/enrolment-codes", json={"count": 3, "labels": {"site": "berlin"}}
    )
    plain = [item["code"] for item in made.json()["items"]]
    assert len(set(plain)) == 3
    listed = fleet.operator.get("/api/v1/enrolment-codes")
    assert len(listed.json()["items"]) == 3
    assert not any(code in listed.text for code in plain)
    audit = fleet.operator.get("/api/v1/events", params={"object": "enrolment-codes"})
    assert [e["verb"] for e in audit.json()["items"]] == ["enrolment_code.create"]
    assert not any(code in audit.text for code in plain)


def test_used_code_cannot_be_taken_back(fleet: Fleet, cam: SimulatedDevice) -> None:
    cam.enrol(fleet.code())
    used = fleet.operator.get("/api/v1/enrolment-codes").json()["items"][0]
    assert used["used_by"] == "cam-1"
    refused = fleet.operator.delete(f"/api/v1/enrolment-codes/{used['id']}")
    assert code_of(refused) == (409, "enrolment_code_used")
    missing = fleet.operator.delete("/api/v1/enrolment-codes/999")
    assert code_of(missing) == (404, "enrolment_code_unknown")


@only_sqlite
def test_names_chosen_for_their_hash_get_buckets_by_chance(fleet: Fleet, db: Any) -> None:
    """A hash of the name let somebody choose names that each wave takes together."""
    one, other = same_hash()
    for name in (one, other):
        SimulatedDevice(name, fleet.client).enrol(fleet.code())
    with db.read() as session:
        found = session.scalars(select(DeviceRow.bucket).where(DeviceRow.name.in_((one, other))))
        buckets = list(found)
    assert len(set(buckets)) == 2


def same_hash() -> tuple[str, str]:
    """Return two names with one SHA-256 modulo 2^31 - 1."""
    seen: dict[int, str] = {}
    for n in range(1_000_000):
        digest = hashlib.sha256(f"cam-{n}".encode()).digest()
        bucket = int.from_bytes(digest[:8], "big") % PRIME
        if bucket in seen:
            return seen[bucket], f"cam-{n}"
        seen[bucket] = f"cam-{n}"
    raise AssertionError("no two names have one hash")

"""The signed report: who is believed, what is stored, what comes back."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.messages.check_in import CHECK_IN_TYPE, MAX_CHECK_IN_BYTES, DeviceEvent
from pilotwave_protocol.states import ModelState
from tests.server.device_api.peer import SimulatedDevice, code_of, installed, report
from tests.server.fleet_fixtures import Fleet, only_sqlite

PATH = "/device/v1/check-in"


def model_of(fleet: Fleet, device: str = "cam-1") -> Any:
    return fleet.operator.get(f"/api/v1/devices/{device}").json()["models"][0]


def test_answer_holds_a_token_the_pace_and_the_newest_metadata(fleet: Fleet, clock: Any) -> None:
    answer = fleet.device().check_in().json()
    assert answer.pop("token")
    assert answer == {
        "token_expires_in_s": 900,
        "poll_interval_s": 60,
        "check_in_interval_s": 900,
        "acked_event": 0,
        "tuf": {"root": 1, "timestamp": 5, "snapshot": 5},
        "now": "2026-01-31T09:30:00Z",
        "acked_metric": 0,
        "push": {"poll_interval_s": 900, "ping_s": 240, "spread_s": 1},
        "max_check_in_bytes": MAX_CHECK_IN_BYTES,
        "accepts": ["numbering"],
        "diagnostics": None,
    }


def test_report_is_stored_and_shown(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    clock.advance(seconds=30)
    failed = report(
        "1.0.0",
        ModelState.FAILED,
        candidate=installed("1.1.0", 2),
        previous=installed("1.0.0"),
        reason="selftest_mismatch",
        detail="case 3 differs",
        progress=100,
    )
    refusal = {"reason": "metadata_expired", "detail": "timestamp expired"}
    cam.check_in(failed, dropped_events=2, directive_seq=9, refusal=refusal)
    found = fleet.operator.get("/api/v1/devices/cam-1").json()
    assert found["models"] == [
        {
            "model": "detector",
            "state": "failed",
            "current_version": "1.0.0",
            "current_sha256": "ab" * 32,
            "current_variant": "onnx-fp32",
            "previous_version": "1.0.0",
            "candidate_version": "1.1.0",
            "progress": 100,
            "reason": "selftest_mismatch",
            "detail": "case 3 differs",
            "since": "2026-01-31T09:30:30Z",
        }
    ]
    assert (found["directive_seq"], found["dropped_events"]) == (9, 2)
    assert found["refusal"].pop("action").startswith("renew what expired")
    assert (found["refusal"], found["agent"]) == (refusal, "0.1.0")
    assert found["tuf"] == {"root": 1, "timestamp": 1, "snapshot": 1}
    assert found["last_seen"] == found["last_check_in"] == "2026-01-31T09:30:30Z"


def test_state_keeps_its_beginning_while_it_lasts(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    fetching = report("1.0.0", ModelState.FETCHING, candidate=installed("1.1.0", 2), progress=10)
    cam.check_in(fetching)
    clock.advance(seconds=60)
    cam.check_in(report("1.0.0", ModelState.FETCHING, candidate=installed("1.1.0", 2), progress=90))
    found = model_of(fleet)
    assert (found["since"], found["progress"]) == ("2026-01-31T09:30:00Z", 90)


def test_model_that_is_not_reported_any_more_is_gone(fleet: Fleet) -> None:
    cam = fleet.device()
    cam.check_in(report("1.0.0"), report("2.0", model="ocr"))
    cam.check_in(report("1.0.0"))
    models = fleet.operator.get("/api/v1/devices/cam-1").json()["models"]
    assert [m["model"] for m in models] == ["detector"]


def event(id: int, clock: Any, kind: str = "switched", **given: Any) -> DeviceEvent:
    given = {"model": "detector", "version": "1.0.0", **given}
    return DeviceEvent(id=id, at=clock(), kind=kind, **given)


def test_events_are_stored_once_however_often_they_come(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    first = (event(1, clock), event(2, clock, "healthy"))
    assert cam.check_in(events=first).json()["acked_event"] == 2
    again = (*first, event(3, clock, "accepted", model=None, version=None, detail="all"))
    assert cam.check_in(events=again).json()["acked_event"] == 3
    assert cam.check_in(events=(event(1, clock),)).json()["acked_event"] == 3
    found = fleet.operator.get("/api/v1/devices/cam-1/events").json()["items"]
    assert [(e["number"], e["kind"]) for e in found] == [
        (3, "accepted"),
        (2, "healthy"),
        (1, "switched"),
    ]
    history = fleet.operator.get("/api/v1/devices/cam-1/history").json()["items"]
    assert [h["became"] for h in history] == ["healthy", "switched"]


def test_history_is_complete_without_events_and_never_dated_ahead(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    cam.check_in(report("1.0.0"))
    ahead = DeviceEvent(1, clock() + timedelta(days=9), "switched", "detector", "1.1.0")
    cam.check_in(report("1.1.0", ModelState.PROBATION), events=(ahead,))
    cam.check_in(report("1.0.0", ModelState.ROLLED_BACK, reason="probe_failed"))
    history = fleet.operator.get("/api/v1/devices/cam-1/history").json()["items"]
    assert [(h["version"], h["became"], h["reason"]) for h in history] == [
        ("1.1.0", "rolled_back", "probe_failed"),
        ("1.1.0", "switched", None),
        ("1.0.0", "healthy", None),
        ("1.0.0", "switched", None),
    ]
    assert {h["at"] for h in history} == {"2026-01-31T09:30:00Z"}


def test_replayed_report_is_refused_with_where_to_go_on(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    raw = cam.check_in_envelope(report("1.0.0"), events=(event(7, clock),))
    assert cam.post(PATH, raw).status_code == 200
    cam.check_in(report("1.1.0"))
    replayed = cam.post(PATH, raw)
    assert code_of(replayed) == (409, "stale_seq")
    assert replayed.json()["last_seq"] == 3
    assert model_of(fleet)["current_version"] == "1.1.0"


def test_of_many_copies_at_once_exactly_one_counts(fleet: Fleet) -> None:
    cam = fleet.device()
    raw = cam.check_in_envelope(report("1.0.0"))
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(a.status_code for a in pool.map(lambda _: cam.post(PATH, raw), range(8)))
    assert statuses == [200] + [409] * 7


def test_many_devices_at_once_are_all_stored(fleet: Fleet) -> None:
    names = [f"cam-{n}" for n in range(24)]
    cams = [fleet.device(name) for name in names]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda cam: cam.check_in(report("1.0.0"), facts=cam.facts), cams))
    assert {a.status_code for a in answers} == {200}
    listed = fleet.operator.get("/api/v1/devices").json()["items"]
    assert {d["name"]: d["models"][0]["current_version"] for d in listed} == dict.fromkeys(
        names, "1.0.0"
    )


@only_sqlite
def test_forged_reports_are_refused_and_change_nothing(fleet: Fleet) -> None:
    cam = fleet.device()
    cam.check_in(report("1.0.0"))
    other = fleet.device("cam-2")
    own, cam.key = cam.key, Ed25519PrivateKey.generate()
    assert code_of(cam.check_in(report("6.6.6"))) == (401, "bad_signature")
    cam.key = other.key
    assert code_of(cam.check_in(report("6.6.6"))) == (401, "bad_signature")
    cam.key = own
    assert code_of(cam.check_in(device="cam-2")) == (401, "bad_signature")
    assert code_of(cam.check_in(device="cam-9")) == (401, "unknown_device")
    assert code_of(cam.check_in(fleet="another")) == (403, "wrong_fleet")
    raw = json.loads(cam.check_in_envelope(report("6.6.6")))
    payload = base64.b64decode(raw["payload"]).replace(b"6.6.6", b"7.7.7")
    raw["payload"] = base64.b64encode(payload).decode()
    assert code_of(cam.post(PATH, json.dumps(raw).encode())) == (401, "bad_signature")
    assert model_of(fleet)["current_version"] == "1.0.0"


@only_sqlite
def test_report_outside_the_protocol_is_refused_with_a_sentence(fleet: Fleet) -> None:
    cam = fleet.device()
    good = json.loads(cam.check_in_envelope())
    twice = cam.check_in_envelope().replace(b'{"payload"', b'{"payload":"","payload"', 1)
    bodies = [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        b"null",
        twice,
        json.dumps({**good, "payloadType": "text/plain"}).encode(),
        json.dumps({**good, "signatures": []}).encode(),
        json.dumps({**good, "signatures": good["signatures"] * 9}).encode(),
        json.dumps({**good, "payload": "!"}).encode(),
        b"[" * 60_000,
        *(
            cam.check_in_envelope(**change)
            for change in (
                {"seq": 0},
                {"seq": "1"},
                {"seq": 2**63},
                {"models": [1]},
                {"facts": {"a": None}},
                {"more": 1},
                {"agent": "a\x00b"},
                {"device": "../x"},
                {"tuf": {"root": -1}},
                {"refusal": {"reason": "yanked"}},
            )
        ),
    ]
    for body in bodies:
        answer = cam.post(PATH, body)
        assert code_of(answer) == (422, "bad_check_in"), body[:80]
        assert answer.json()["detail"].startswith("this is not a check-in: ")
    cam.seq += 1
    assert cam.check_in().status_code == 200


@only_sqlite
def test_report_over_the_limit_is_refused_before_it_is_read(fleet: Fleet) -> None:
    cam = fleet.device()
    assert code_of(cam.post(PATH, b"x" * (MAX_CHECK_IN_BYTES + 1))) == (413, "body_too_large")

    def endless() -> Any:
        for _ in range(MAX_CHECK_IN_BYTES // 1024 + 36):
            yield b"x" * 1024

    unannounced = fleet.client.post(PATH, content=endless())
    assert code_of(unannounced) == (413, "body_too_large")


def test_odd_texts_come_back_as_they_were(fleet: Fleet, clock: Any) -> None:
    cam = fleet.device()
    odd = "quote ', backslash \\, bell \a, \u2028 and \U0001f980"
    failed = report("1.0.0", ModelState.FAILED, detail=odd, reason="internal")
    answer = cam.check_in(failed, agent="é'\";--", events=(event(1, clock, detail=odd),))
    assert answer.status_code == 200, answer.text
    assert model_of(fleet)["detail"] == odd
    assert fleet.operator.get("/api/v1/devices/cam-1").json()["agent"] == "é'\";--"
    told = fleet.operator.get("/api/v1/devices/cam-1/events").json()["items"]
    assert told[0]["detail"] == odd


def test_facts_that_matter_change_what_the_device_is_told(fleet: Fleet) -> None:
    cam = fleet.device()
    fleet.group("charged", "fact.battery>20")
    fleet.assign("charged", "1.0.0")
    assert cam.runs() == {}
    seq = cam.directive().seq
    cam.check_in(facts={**cam.facts, "battery": 21})
    assert cam.runs() == {"detector": "1.0.0"}
    after = cam.directive().seq
    assert after > seq
    cam.check_in(facts={**cam.facts, "battery": 95, "disk_free_mb": 7})
    assert cam.directive().seq == after
    cam.check_in(facts={**cam.facts, "battery": 95, "arch": "riscv64"})
    assert cam.directive().seq > after
    cam.check_in(facts={"arch": "aarch64", "battery": 95})
    assert cam.runs() == {}


def test_facts_stay_when_a_report_leaves_them_out(fleet: Fleet) -> None:
    cam = fleet.device()
    cam.check_in(facts={**cam.facts, "load": 0.1 + 0.2})
    cam.check_in()
    found = fleet.operator.get("/api/v1/devices/cam-1").json()["facts"]
    assert found == {**cam.facts, "load": 0.3}


def test_envelope_with_further_signatures_is_taken_for_the_devices_own(fleet: Fleet) -> None:
    cam = fleet.device()
    raw = json.loads(cam.check_in_envelope())
    stranger = dsse.sign(CHECK_IN_TYPE, b"{}", Ed25519PrivateKey.generate())
    raw["signatures"] = [*json.loads(stranger)["signatures"] * 7, *raw["signatures"]]
    assert cam.post(PATH, json.dumps(raw).encode()).status_code == 200


def test_refusals_and_storings_are_counted(fleet: Fleet) -> None:
    cam = fleet.device()
    cam.post(PATH, b"{}")
    metrics = fleet.operator.get("/metrics").text
    assert 'pilotwave_check_ins_total{result="stored"} 1.0' in metrics
    assert 'pilotwave_check_ins_total{result="bad_check_in"} 1.0' in metrics


def test_device_is_one_whatever_spelling_a_url_has(fleet: Fleet) -> None:
    device = SimulatedDevice("a.b-c_d", fleet.client)
    assert device.enrol(fleet.code()).status_code == 201
    assert device.check_in().status_code == 200
    assert device.poll().status_code == 200
    assert fleet.operator.get("/api/v1/devices/a.b-c_d").status_code == 200

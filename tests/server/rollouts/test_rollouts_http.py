"""Rollouts as operators and devices see them, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from pilotwave_protocol.messages.check_in import ModelReport
from pilotwave_protocol.states import ModelState
from pilotwave_server.devices.service import get_device
from pilotwave_server.operators import service
from pilotwave_server.operators.roles import Role
from tests.server.device_api.peer import SimulatedDevice, code_of, installed
from tests.server.fleet_fixtures import Fleet
from tests.server.rollouts.test_engine_http import show

DAY = 86_400
WAVES: list[dict[str, Any]] = [
    {"name": "canary", "canary": {"devices": ["cam-1"]}, "soak_s": DAY, "min_sample": 100},
    {"name": "everyone", "percent": 100, "soak_s": DAY, "min_sample": 100},
]
CAREFUL = {"name": "by-hand", "waves": WAVES}


@pytest.fixture
def cams(fleet: Fleet) -> Fleet:
    """Three devices in the group `cams`, which runs 1.0.0."""
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    for n in range(1, 4):
        fleet.device(f"cam-{n}", line="a")
    return fleet


def wish(**changes: Any) -> dict[str, Any]:
    told = {"group": "cams", "model": "detector", "version": "1.1.0", "document": CAREFUL}
    return {**told, **changes}


def create(fleet: Fleet, **changes: Any) -> dict[str, Any]:
    answer = fleet.operator.post("/api/v1/rollouts", json=wish(**changes))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def step(fleet: Fleet, rollout: str, verb: str, **body: Any) -> httpx.Response:
    return fleet.operator.post(f"/api/v1/rollouts/{rollout}/{verb}", json=body)


def open_wave(fleet: Fleet, rollout: str, index: int) -> None:
    """Wait for the engine to open the first wave; open by hand those up to `index`."""
    wait_for(lambda: show(fleet, rollout)["wave"] >= 0)
    while show(fleet, rollout)["wave"] < index:
        assert step(fleet, rollout, "next").status_code == 200


def wait_for(look: Callable[[], bool], *, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def why(fleet: Fleet, device: str) -> dict[str, Any]:
    path = f"/api/v1/devices/{device}/why"
    found: dict[str, Any] = fleet.operator.get(path, params={"model": "detector"}).json()
    return found


def devices(fleet: Fleet) -> list[Any]:
    return [fleet.device(f"cam-{n}", line="a") for n in range(4, 7)]


def test_why_of_a_model_that_there_is_not_says_so(cams: Fleet) -> None:
    answer = cams.operator.get("/api/v1/devices/cam-1/why", params={"model": "detectr"})
    assert (answer.status_code, answer.json()["code"]) == (404, "model_unknown")
    assert "there is no model detectr" in answer.json()["detail"]


def test_rollout_reaches_devices_wave_by_wave(cams: Fleet) -> None:
    first, second = (cams.device(f"more-{n}", line="a") for n in (1, 2))
    waves = [{**WAVES[0], "canary": {"devices": ["more-1"]}}, WAVES[1]]
    made = create(cams, document={**CAREFUL, "waves": waves}, start=True)
    assert (made["state"], made["wave_count"], made["policy"]) == ("running", 2, "by-hand")
    open_wave(cams, made["id"], 0)
    assert (first.runs(), second.runs()) == ({"detector": "1.1.0"}, {"detector": "1.0.0"})
    assert first.directive().entries[0].rollout == made["id"]
    open_wave(cams, made["id"], 1)
    assert second.runs() == {"detector": "1.1.0"}


def test_pause_stops_new_offers_at_the_next_poll(cams: Fleet) -> None:
    late = cams.device("late", line="a")
    made = create(cams, start=True)
    open_wave(cams, made["id"], 1)
    assert late.runs() == {"detector": "1.1.0"}
    assert step(cams, made["id"], "pause", reason="odd colours").status_code == 200
    assert late.runs() == {"detector": "1.0.0"}
    found = show(cams, made["id"])
    assert (found["state"], found["paused_by"]) == ("paused", "token/test-operator")
    assert "odd colours" in found["reason"]


def test_why_explains_each_way_to_wait_for_a_rollout(cams: Fleet) -> None:
    made = create(cams, start=True)
    open_wave(cams, made["id"], 0)
    held = why(cams, "cam-2")
    assert held["version"] == "1.0.0"
    assert held["candidates"][0]["hold"] == "wave_not_open"
    assert "has opened wave canary" in held["candidates"][0]["sentence"]
    assert "because rollout" in why(cams, "cam-1")["sentence"]
    step(cams, made["id"], "pause")
    assert why(cams, "cam-1")["candidates"][0]["hold"] == "rollout_paused"
    step(cams, made["id"], "rollback", reason="sees ghosts")
    held = why(cams, "cam-1")
    assert [c["reason"] for c in held["candidates"]] == ["baseline"]


def test_why_says_that_a_device_waits_for_its_turn(cams: Fleet) -> None:
    waves = [{"name": "all", "percent": 100, "soak_s": DAY, "min_sample": 100}]
    document = {"name": "slow", "waves": waves, "pace": {"max_in_flight": 1}}
    made = create(cams, document=document, start=True)
    open_wave(cams, made["id"], 0)
    assert why(cams, "cam-1")["candidates"][0]["hold"] == "needs_lease"
    assert show(cams, made["id"])["pace"] == ["0 in flight of at most 1"]


def test_why_names_the_failure_in_a_paced_rollout_and_the_retry_lets_the_device_in_again(
    cams: Fleet,
) -> None:
    waves = [{"name": "all", "percent": 100, "soak_s": DAY, "min_sample": 100}]
    document = {"name": "slow", "waves": waves, "pace": {"max_in_flight": 5}}
    device = cams.device("late", line="a")
    made = create(cams, document=document, start=True)
    open_wave(cams, made["id"], 0)
    wait_for(lambda: device.runs() == {"detector": "1.1.0"})
    old, new = installed("1.0.0", 1), installed("1.1.0", 2)
    told = {"reason": "selftest_load", "detail": "it does not load"}
    device.check_in(ModelReport("detector", ModelState.FAILED, old, candidate=new, **told))  # type: ignore[arg-type]
    device.check_in(ModelReport("detector", ModelState.HEALTHY, old))
    again = "pilotwave devices retry late --model detector"
    sentence = (
        f"1.1.0 failed on late (it does not load), so {made['id']} offers it no more; "
        f"to let it try again: `{again}`"
    )
    found = why(cams, "late")
    assert (found["version"], found["candidates"][0]["hold"]) == ("1.0.0", "failed_here")
    assert found["sentence"].endswith(sentence)
    step(cams, made["id"], "pause")
    assert why(cams, "late")["candidates"][0]["hold"] == "failed_here"
    step(cams, made["id"], "resume")
    assert device.runs() == {"detector": "1.0.0"}
    assert cams.act("late", "models/detector/retry").status_code == 200
    found = why(cams, "late")["candidates"][0]
    assert (found["hold"], "it may try again" in found["sentence"]) == ("needs_lease", True)
    device.check_in(ModelReport("detector", ModelState.HEALTHY, old))
    wait_for(lambda: device.runs() == {"detector": "1.1.0"})


def test_why_says_that_a_device_is_silent(cams: Fleet) -> None:
    assert "silent" not in why(cams, "cam-1")["sentence"]
    with cams.context.db.write() as session:
        row = get_device(session, "cam-1", lock=True)
        row.last_seen = datetime(2026, 1, 1, tzinfo=UTC)
    assert "cam-1 has been silent since 2026-01-01T00:00:00Z" in why(cams, "cam-1")["sentence"]


def test_paced_rollout_lets_in_devices_that_poll(cams: Fleet) -> None:
    waves = [{"name": "all", "percent": 100, "soak_s": DAY, "min_sample": 100}]
    document = {"name": "slow", "waves": waves, "pace": {"max_in_flight": 2}}
    made = create(cams, document=document, start=True)
    open_wave(cams, made["id"], 0)
    asking = devices(cams)
    for _ in range(100):
        told = [device.runs()["detector"] for device in asking]
        if told.count("1.1.0") == 2:
            break
        time.sleep(0.05)
    assert sorted(told) == ["1.0.0", "1.1.0", "1.1.0"]
    found = show(cams, made["id"])
    assert found["waves"][0]["in_flight"] == 2
    leased = cams.operator.get(f"/api/v1/rollouts/{made['id']}/devices?outcome=leased").json()
    assert [d["outcome"] for d in leased["items"]] == ["leased", "leased"]


def test_preview_comes_true_with_its_salt(cams: Fleet) -> None:
    devices(cams)
    waves = [{"name": "half", "percent": 50, "soak_s": DAY, "min_sample": 100}, WAVES[1]]
    document = {**CAREFUL, "waves": waves}
    seen = cams.operator.post("/api/v1/rollouts/preview", json=wish(document=document)).json()
    assert (seen["devices"], seen["fits"], seen["outside"]) == (6, 6, 0)
    assert (seen["refusal"], seen["variants"]) == (None, {"onnx-fp32": 6})
    assert sum(wave["devices"] for wave in seen["waves"]) == 6
    first = {d["device"] for d in seen["items"] if d["wave"] == 0}
    made = create(cams, document=document, start=True, salt=seen["salt"])
    open_wave(cams, made["id"], 0)
    now = cams.operator.get(f"/api/v1/rollouts/{made['id']}/preview").json()
    assert (now["salt"], now["items"]) == (seen["salt"], seen["items"])
    took = {f"cam-{n}" for n in range(1, 7) if why(cams, f"cam-{n}")["version"] == "1.1.0"}
    assert took == first


def test_pinned_devices_are_not_counted_as_takers(cams: Fleet) -> None:
    """A count wave of two takes two devices that can take it, whoever is pinned."""
    devices(cams)
    for n in (1, 2, 3):
        held = {"version": "1.0.0", "reason": "held"}
        answer = cams.act(f"cam-{n}", "models/detector/pin", **held)
        assert answer.status_code == 200, answer.text
    waves = [{"name": "two", "count": 2, "soak_s": DAY, "min_sample": 100}, WAVES[1]]
    document = {**CAREFUL, "waves": waves}
    seen = cams.operator.post("/api/v1/rollouts/preview", json=wish(document=document)).json()
    assert (seen["devices"], seen["pinned"], seen["fits"]) == (3, 3, 3)
    assert [wave["devices"] for wave in seen["waves"]] == [2, 1]
    assert {d["device"]: d["pinned"] for d in seen["items"]} == {
        **{f"cam-{n}": "1.0.0" for n in (1, 2, 3)},
        **{f"cam-{n}": None for n in (4, 5, 6)},
    }
    only = cams.operator.post("/api/v1/rollouts/preview", json=wish(document=document, wave=0))
    assert not any(d["pinned"] for d in only.json()["items"])
    made = create(cams, document=document, start=True, salt=seen["salt"])
    open_wave(cams, made["id"], 0)
    took = {f"cam-{n}" for n in range(1, 7) if why(cams, f"cam-{n}")["version"] == "1.1.0"}
    assert took == {d["device"] for d in seen["items"] if d["wave"] == 0}
    assert len(took) == 2


def test_preview_is_paged_and_says_who_has_no_variant(cams: Fleet) -> None:
    odd = SimulatedDevice("odd", cams.client, facts={"arch": "riscv64", "memory_mb": 8})
    assert odd.enrol(cams.code(labels={"line": "a"})).status_code == 201
    names: list[str] = []
    body = wish(limit=3)
    while True:
        seen = cams.operator.post("/api/v1/rollouts/preview", json=body).json()
        names += [d["device"] for d in seen["items"]]
        if seen["next_cursor"] is None:
            break
        body = {**body, "cursor": seen["next_cursor"]}
    assert names == ["cam-1", "cam-2", "cam-3", "odd"]
    last = seen["items"][-1]
    assert (last["variant"], last["hold"]) == (None, "runtime_missing")
    assert (seen["fits"], seen["holds"]) == (3, {"runtime_missing": 1})


def test_preview_tells_what_would_be_refused(cams: Fleet) -> None:
    create(cams, start=True)
    seen = cams.operator.post("/api/v1/rollouts/preview", json=wish(version="1.2.0")).json()
    assert seen["refusal"] == "rollout_in_the_way"
    cams.group("none", "line=z")
    body = wish(group="none", version="1.2.0")
    seen = cams.operator.post("/api/v1/rollouts/preview", json=body).json()
    assert (seen["refusal"], seen["devices"]) == ("nobody_there", 0)
    assert "matches none" in seen["refusal_sentence"]


def test_pace_that_a_small_group_cannot_keep_is_warned_of(cams: Fleet) -> None:
    document = {**CAREFUL, "pace": {"min_available": 0.9}}
    made = create(cams, document=document)
    assert made["state"] == "draft"
    assert "one at a time" in made["warnings"][0]


def test_list_is_paged_and_filtered(cams: Fleet) -> None:
    ids = []
    for _ in range(3):
        ids.append(create(cams)["id"])
        assert step(cams, ids[-1], "abort").status_code == 200
    ids.append(create(cams)["id"])
    found: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": 3, **({} if cursor is None else {"cursor": cursor})}
        page = cams.operator.get("/api/v1/rollouts", params=params).json()
        found += [r["id"] for r in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == ids[::-1]
    for query, expected in [("state=draft", ids[3:]), ("group=cams&model=detector", found)]:
        page = cams.operator.get(f"/api/v1/rollouts?{query}").json()
        assert [r["id"] for r in page["items"]] == expected
    assert code_of(cams.operator.get("/api/v1/rollouts?group=gone")) == (404, "group_unknown")


@pytest.mark.parametrize(
    "path", ["rollouts", "devices", "device-count", "devices.csv", "devices/cam-1/history"]
)
def test_a_model_that_is_not_there_is_told_by_each_list(cams: Fleet, path: str) -> None:
    """An empty list would say that nothing runs a model whose name was mistyped."""
    answer = cams.operator.get(f"/api/v1/{path}?model=detectr")
    assert code_of(answer) == (404, "model_unknown")
    assert "there is no model detectr" in answer.json()["detail"]


def test_decisions_are_listed_newest_first(cams: Fleet) -> None:
    made = create(cams)
    step(cams, made["id"], "start", reason="go")
    step(cams, made["id"], "abort", reason="stop")
    page = cams.operator.get(f"/api/v1/rollouts/{made['id']}/decisions").json()
    actions = [d["action"] for d in page["items"] if d["actor"] != "server"]
    assert actions == ["abort", "start", "create"]
    assert page["items"][0]["sentence"] == "aborted by token/test-operator: stop"


@pytest.mark.parametrize(
    ("verb", "status", "code"),
    [
        ("approve", 409, "wrong_rollout_state"),
        ("pause", 409, "wrong_rollout_state"),
        ("resume", 409, "wrong_rollout_state"),
        ("next", 409, "wrong_rollout_state"),
        ("rollback", 409, "wrong_rollout_state"),
        ("retry", 409, "wrong_rollout_state"),
    ],
)
def test_step_that_a_draft_cannot_take_is_refused(
    cams: Fleet, verb: str, status: int, code: str
) -> None:
    made = create(cams)
    why = {"reason": "sees ghosts"} if verb == "rollback" else {}
    answer = step(cams, made["id"], verb, **why)
    assert code_of(answer) == (status, code)
    assert "is draft" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"group": "gone"}, 404, "group_unknown"),
        ({"model": "gone"}, 404, "model_unknown"),
        ({"version": "9.9.9"}, 404, "version_unknown"),
        ({"policy": "standard"}, 422, "one_policy"),
        ({"document": None}, 422, "one_policy"),
        ({"document": None, "policy": "no-such-policy"}, 404, "policy_unknown"),
        ({"salt": "1.99999999999"}, 422, "invalid"),
        ({"salt": "2147483647.1"}, 422, "bad_salt"),
        ({"end_at": "2020-01-01T00:00:00Z"}, 422, "bad_times"),
    ],
)
def test_wish_that_makes_no_sense_is_refused(
    cams: Fleet, changes: dict[str, Any], status: int, code: str
) -> None:
    answer = cams.operator.post("/api/v1/rollouts", json=wish(**changes))
    assert code_of(answer) == (status, code)


def test_unknown_rollout_and_bad_name(cams: Fleet) -> None:
    assert code_of(cams.operator.get("/api/v1/rollouts/r999")) == (404, "rollout_unknown")
    assert cams.operator.get("/api/v1/rollouts/17").status_code == 422


def test_author_may_not_approve_but_another_may(cams: Fleet) -> None:
    made = create(cams, document={**CAREFUL, "approval": True}, start=True)
    assert made["state"] == "awaiting_approval"
    assert code_of(step(cams, made["id"], "approve")) == (403, "own_rollout")
    with cams.context.db.write() as session:
        issued = service.issue(
            session,
            name="second",
            role=Role.OPERATOR,
            actor="server",
            now=cams.context.clock(),
        )
    second = {"Authorization": f"Bearer {issued.plaintext}"}
    path = f"/api/v1/rollouts/{made['id']}/approve"
    answer = cams.client.post(path, json={"reason": "looks good"}, headers=second)
    assert (answer.status_code, answer.json()["state"]) == (200, "running")
    assert answer.json()["approved_by"] == "token/second"

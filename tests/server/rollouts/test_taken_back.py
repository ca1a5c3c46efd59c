"""Whoever took a version in a rollout is taken back with it, wherever it is now."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from pilotwave_protocol.messages.check_in import DeviceEvent, ModelReport
from pilotwave_protocol.states import ModelState as S
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.settings import Settings
from tests.conftest import START
from tests.server.device_api.peer import ONNX, installed
from tests.server.fleet_fixtures import Fleet
from tests.server.rollouts.test_engine_http import (
    GATES,
    Obeying,
    create,
    devices,
    in_state,
    live_until,
    show,
)

pytestmark = pytest.mark.long

PIN = "models/detector/pin"
CANARY = {"name": "canary", "canary": {"devices": ["cam-1"]}, "manual": True}
POLICY = {"waves": [CANARY, {"name": "everyone", "percent": 100, "gates": GATES}]}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Devices here report as fast as they can, on a clock that stands still."""
    return settings.model_copy(update={"check_ins_per_minute": 100_000})


@pytest.fixture
def cams(fleet: Fleet) -> Fleet:
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    fleet.group("others", "line=b")
    return fleet


def label(fleet: Fleet, device: str, **labels: str) -> None:
    path = f"/api/v1/devices/{device}"
    assert fleet.operator.patch(path, json={"labels": labels}).status_code == 200


def act(fleet: Fleet, rollout: str, verb: str) -> None:
    path = f"/api/v1/rollouts/{rollout}/{verb}"
    answer = fleet.operator.post(path, json={"reason": "bad in the field"})
    assert answer.status_code == 200, answer.text
    fleet.context.get(FleetState).refresh()


def outcome(fleet: Fleet, rollout: str, device: str) -> dict[str, Any]:
    items = fleet.operator.get(f"/api/v1/rollouts/{rollout}/devices").json()["items"]
    return next(item for item in items if item["device"] == device)


def why(fleet: Fleet, device: str) -> dict[str, Any]:
    answer = fleet.operator.get(f"/api/v1/devices/{device}/why", params={"model": "detector"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def taken(fleet: Fleet, **policy: Any) -> tuple[str, list[Obeying]]:
    """A rollout whose canary, cam-1, is healthy on 1.1.0."""
    three = devices(fleet)
    rollout = create(fleet, policy={**POLICY, **policy})
    live_until(fleet, rollout, three, lambda found: found["waves"][0]["healthy"] == 1)
    assert three[0].current == "1.1.0"
    return rollout, three


def end(fleet: Fleet, rollout: str, cams: list[Obeying]) -> str:
    """Roll it back, and return the sentence with which that ended."""
    act(fleet, rollout, "rollback")
    found = live_until(fleet, rollout, cams, in_state("rolled_back"))
    for _ in range(3):
        fleet.context.get(FleetState).refresh()
        for cam in cams:
            cam.live()
    return str(found["decisions"][0]["sentence"])


def to_no_group(fleet: Fleet) -> None:
    label(fleet, "cam-1", line="none")


def to_a_group_that_says_nothing(fleet: Fleet) -> None:
    label(fleet, "cam-1", line="b")


def to_a_group_whose_rollout_has_not_reached_it(fleet: Fleet) -> None:
    label(fleet, "cam-1", line="b")
    fleet.device("cam-9", line="b")
    waves = [{"name": "canary", "canary": {"devices": ["cam-9"]}}, POLICY["waves"][1]]
    create(fleet, group="others", version="1.2.0", policy={"waves": waves})


@pytest.mark.parametrize(
    "move", [to_no_group, to_a_group_that_says_nothing, to_a_group_whose_rollout_has_not_reached_it]
)
@pytest.mark.parametrize("when", ["running", "paused", "rolled back"])
def test_a_device_that_was_moved_is_taken_back(
    cams: Fleet, move: Callable[[Fleet], None], when: str
) -> None:
    rollout, three = taken(cams)
    if when == "paused":
        act(cams, rollout, "pause")
    if when != "rolled back":
        move(cams)
        three[0].live()
        assert three[0].current == "1.1.0"  # nothing tells it otherwise so far
    sentence = end(cams, rollout, three)
    if when == "rolled back":
        move(cams)
        three[0].live()
    assert [cam.current for cam in three] == ["1.0.0"] * 3
    assert sentence == "every device that took the version has left it"
    assert outcome(cams, rollout, "cam-1")["outcome"] == "returned"
    assert "1.0.0" in outcome(cams, rollout, "cam-1")["detail"]


def test_a_device_that_was_taken_off_a_static_group_is_taken_back(fleet: Fleet) -> None:
    fleet.group("cams")
    fleet.assign("cams", "1.0.0")
    one = Obeying(fleet.device("cam-1"))
    one.check_in(S.HEALTHY)
    members = "/api/v1/groups/cams/members/cam-1"
    assert fleet.operator.put(members).status_code in (200, 204)
    rollout = create(fleet, policy=POLICY)
    live_until(fleet, rollout, [one], lambda found: found["waves"][0]["healthy"] == 1)
    assert fleet.operator.delete(members).status_code in (200, 204)
    end(fleet, rollout, [one])
    assert one.current == "1.0.0"


def test_a_device_that_left_the_group_by_a_fact_is_taken_back(fleet: Fleet) -> None:
    fleet.group("cams", "fact.site=lab")
    fleet.assign("cams", "1.0.0")
    device = fleet.device("cam-1")
    one = Obeying(device)
    assert device.check_in(facts={**ONNX, "site": "lab"}).status_code == 200
    one.check_in(S.HEALTHY)
    rollout = create(fleet, policy=POLICY)
    live_until(fleet, rollout, [one], lambda found: found["waves"][0]["healthy"] == 1)
    assert device.check_in(facts={**ONNX, "site": "yard"}).status_code == 200
    end(fleet, rollout, [one])
    assert one.current == "1.0.0"


def test_a_device_that_was_moved_before_it_could_report_is_taken_back(cams: Fleet) -> None:
    three = devices(cams)
    rollout = create(cams, policy=POLICY)
    live_until(cams, rollout, three[1:], lambda found: found["waves"][0]["state"] == "open")
    assert three[0].device.runs() == {"detector": "1.1.0"}
    label(cams, "cam-1", line="none")
    three[0].current = "1.1.0"
    now = ModelReport("detector", S.PROBATION, installed("1.1.0", 2), installed("1.0.0", 1))
    switched = DeviceEvent(901, START, "switched", "detector", "1.1.0")
    assert three[0].device.check_in(now, events=(switched,)).status_code == 200
    assert outcome(cams, rollout, "cam-1")["outcome"] == "switched"
    end(cams, rollout, three)
    assert three[0].current == "1.0.0"


def test_a_paced_rollout_takes_back_too(cams: Fleet) -> None:
    rollout, three = taken(cams, pace={"max_in_flight": 2})
    label(cams, "cam-1", line="none")
    end(cams, rollout, three)
    assert three[0].current == "1.0.0"


def test_a_gate_takes_back_who_was_moved(cams: Fleet) -> None:
    rollout, three = taken(cams)
    label(cams, "cam-1", line="none")
    for cam in three[1:]:
        cam.bad.add("1.1.0")
    act(cams, rollout, "next")
    live_until(cams, rollout, three, in_state("rolled_back"))
    three[0].live()
    assert three[0].current == "1.0.0"


def test_a_pin_wins_and_the_account_says_so(cams: Fleet) -> None:
    rollout, three = taken(cams)
    assert (
        cams.operator.post(
            f"/api/v1/devices/cam-1/{PIN}", json={"version": "1.1.0", "reason": "demo"}
        ).status_code
        == 200
    )
    label(cams, "cam-1", line="none")
    sentence = end(cams, rollout, three)
    assert three[0].current == "1.1.0"
    assert "1 device keeps it: an operator pinned it there" in sentence
    assert outcome(cams, rollout, "cam-1")["outcome"] == "healthy"
    # and when the pin goes, so does the version
    assert cams.operator.delete(f"/api/v1/devices/cam-1/{PIN}").status_code in (200, 204)
    cams.context.get(FleetState).refresh()
    three[0].live()
    three[0].live()
    assert three[0].current == "1.0.0"
    assert outcome(cams, rollout, "cam-1")["outcome"] == "returned"


def test_the_word_of_the_group_that_it_is_in_now_goes_before(cams: Fleet) -> None:
    rollout, three = taken(cams)
    cams.assign("others", "1.2.0")
    label(cams, "cam-1", line="b")
    end(cams, rollout, three)
    assert three[0].current == "1.2.0"


def test_a_group_that_runs_the_version_by_its_own_word_keeps_it_and_that_is_said(
    cams: Fleet,
) -> None:
    rollout, three = taken(cams)
    cams.assign("others", "1.1.0")
    label(cams, "cam-1", line="b")
    sentence = end(cams, rollout, three)
    assert three[0].current == "1.1.0"
    assert "1 device keeps it: it is the baseline of group others" in sentence


def test_a_decommissioned_device_holds_up_nothing(cams: Fleet) -> None:
    rollout, three = taken(cams)
    assert cams.act("cam-1", "decommission").status_code == 200
    assert end(cams, rollout, three[1:]) == "every device that took the version has left it"


def test_a_device_that_has_moved_on_is_left_alone(cams: Fleet) -> None:
    rollout, three = taken(cams)
    assert (
        cams.operator.post(
            f"/api/v1/devices/cam-1/{PIN}", json={"version": "1.2.0", "reason": "a trial"}
        ).status_code
        == 200
    )
    label(cams, "cam-1", line="none")
    for _ in range(2):
        cams.context.get(FleetState).refresh()
        three[0].live()
    assert three[0].current == "1.2.0"
    assert cams.operator.delete(f"/api/v1/devices/cam-1/{PIN}").status_code in (200, 204)
    end(cams, rollout, three)
    assert three[0].current == "1.2.0"
    assert three[0].device.runs() == {}


def test_an_aborted_rollout_leaves_what_devices_took(cams: Fleet) -> None:
    rollout, three = taken(cams)
    label(cams, "cam-1", line="none")
    act(cams, rollout, "abort")
    three[0].live()
    assert three[0].current == "1.1.0"
    assert why(cams, "cam-1")["version"] is None


def test_a_device_that_is_heard_again_after_the_end_is_taken_back_then(
    cams: Fleet, clock: Any
) -> None:
    rollout, three = taken(cams, deadlines={"silent": "60s"})
    label(cams, "cam-1", line="none")
    act(cams, rollout, "rollback")
    ends = time.monotonic() + 60
    while show(cams, rollout)["state"] != "rolled_back":
        assert time.monotonic() < ends
        clock.advance(seconds=600)
        time.sleep(0.3)
    three[0].check_in(S.HEALTHY)
    told = show(cams, rollout)["decisions"][0]["sentence"]
    assert "1 device has been silent lately; the next poll tells it to leave" in told
    three[0].live()
    assert three[0].current == "1.0.0"
    assert outcome(cams, rollout, "cam-1")["outcome"] == "returned"


def test_why_says_which_rollout_takes_a_device_back(cams: Fleet) -> None:
    rollout, _ = taken(cams)
    label(cams, "cam-1", line="none")
    act(cams, rollout, "rollback")
    told = why(cams, "cam-1")
    assert told["version"] == "1.0.0"
    assert f"{rollout}, of which it took 1.1.0, was rolled back" in told["sentence"]

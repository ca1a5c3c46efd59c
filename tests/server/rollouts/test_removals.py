"""A model is ordered off a group or a device: told to agents that know how, and to nobody else."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pilotwave_protocol.messages.check_in import DeviceEvent
from tests.server.device_api.peer import ONNX, SimulatedDevice, report
from tests.server.fleet_fixtures import Fleet

REMOVES = {**ONNX, "removes_models": True}
GROUP = "/api/v1/groups/berlin/baselines/detector/removal"
DEVICE = "/api/v1/devices/cam-1/models/detector/removal"


@pytest.fixture
def cam(fleet: Fleet) -> SimulatedDevice:
    """A device of berlin that runs detector 1.0.0 and can remove models."""
    found = fleet.device("cam-1", site="berlin")
    fleet.group("berlin", "site=berlin")
    fleet.assign("berlin", "1.0.0")
    assert found.check_in(report("1.0.0"), facts=REMOVES).status_code == 200
    return found


def why(fleet: Fleet, device: str = "cam-1") -> Any:
    path = f"/api/v1/devices/{device}/why"
    return fleet.operator.get(path, params={"model": "detector"}).json()["sentence"]


def test_a_removal_is_told_until_the_model_is_assigned_again(
    fleet: Fleet, cam: SimulatedDevice
) -> None:
    assert fleet.operator.get(GROUP).json()["have_it"] == 1
    assert cam.directive().remove == ()
    done = fleet.operator.put(GROUP)
    assert (done.status_code, done.json()) == (
        200,
        {"model": "detector", "have_it": 1, "can_remove": 1},
    )
    told = cam.directive()
    assert (told.entries, told.remove) == ((), ("detector",))
    assert why(fleet) == "cam-1 is told to remove detector: an operator ordered it"
    # a device that comes later follows as well
    late = fleet.device("cam-2", site="berlin")
    assert late.check_in(facts=REMOVES).status_code == 200
    assert late.directive().remove == ("detector",)
    fleet.assign("berlin", "1.1.0")
    told = cam.directive()
    assert (cam.runs(), told.remove) == ({"detector": "1.1.0"}, ())
    # taking that back alone removes nothing: the old order does not come to life again
    path = "/api/v1/groups/berlin/baselines/detector"
    assert fleet.operator.delete(path).status_code == 204
    assert cam.directive().remove == ()


def test_an_older_agent_never_gets_a_removal(fleet: Fleet, cam: SimulatedDevice) -> None:
    old = fleet.device("old-1", site="berlin")
    assert old.check_in(report("1.0.0"), facts=ONNX).status_code == 200
    done = fleet.operator.put(GROUP).json()
    assert (done["have_it"], done["can_remove"]) == (2, 1)
    assert old.directive().remove == ()
    assert "cannot remove models" in why(fleet, "old-1")
    no = {**ONNX, "removes_models": False}
    assert old.check_in(report("1.0.0"), facts=no).status_code == 200
    assert old.directive().remove == ()


def test_whoever_else_asks_for_the_model_is_stronger(fleet: Fleet, cam: SimulatedDevice) -> None:
    fleet.group("labs", "site=berlin")
    fleet.assign("labs", "1.1.0")
    assert fleet.operator.put(GROUP).status_code == 200
    told = cam.directive()
    assert (cam.runs(), told.remove) == ({"detector": "1.1.0"}, ())
    # not even what may not be offered now is removed
    fleet.deny("1.1.0")
    assert cam.directive().remove == ()


def test_one_device_is_told_apart_from_those_like_it(fleet: Fleet, cam: SimulatedDevice) -> None:
    twin = fleet.device("cam-2", site="berlin")
    assert twin.check_in(report("1.0.0"), facts=REMOVES).status_code == 200
    refused = fleet.operator.put(DEVICE)
    assert (refused.status_code, refused.json()["code"]) == (409, "still_assigned")
    assert "group berlin tells cam-1 to run detector 1.0.0" in refused.json()["detail"]
    fleet.operator.delete("/api/v1/groups/berlin/baselines/detector")
    assert fleet.operator.put(DEVICE).status_code == 200
    assert twin.directive().remove == ()
    assert cam.directive().remove == ("detector",)
    assert fleet.operator.delete(DEVICE).status_code == 204
    assert cam.directive().remove == ()
    assert fleet.operator.delete(DEVICE).json()["code"] == "not_removed"


def test_what_is_removed_leaves_the_devices_list(
    fleet: Fleet, cam: SimulatedDevice, clock: Any
) -> None:
    many = [report("1.0.0", model=f"m{n}") for n in range(40)]
    assert cam.check_in(report("1.0.0"), *many).status_code == 200
    gone = DeviceEvent(1, clock(), "removed", model="detector", version="1.0.0")
    # a report of so many may be cut: only what the device says is removed is gone
    assert cam.check_in(*many[1:], events=(gone,)).status_code == 200
    shown = fleet.operator.get("/api/v1/devices/cam-1").json()["models"]
    assert {m["model"] for m in shown} == {f"m{n}" for n in range(40)}


def test_who_removes_is_in_the_log_and_viewers_may_not(
    fleet: Fleet, cam: SimulatedDevice, client: httpx.Client, admin: httpx.Client
) -> None:
    assert client.put(GROUP).status_code == 401
    assert fleet.operator.put(GROUP).status_code == 200
    rows = admin.get("/api/v1/events").json()["items"]
    row = next(r for r in rows if r["verb"] == "baseline.remove")
    assert row["object"] == "group/berlin"
    assert row["after"] == {"model": "detector", "have_it": 1, "can_remove": 1}

"""Two machines with one key: noticed, shown, held; over when somebody says so or one is gone."""

from __future__ import annotations

from typing import Any

import pytest

from pilotwave_protocol.messages.check_in import DeviceEvent
from tests.server.device_api.peer import SimulatedDevice
from tests.server.fleet_fixtures import Fleet

IMAGE = "aa" * 16


class Twin:
    """A machine with the key of `cam`: both count under the image's numbering, and each goes on
    above the other's number, as the agent does."""

    def __init__(self, cam: SimulatedDevice, boot: str) -> None:
        self.cam, self.boot = cam, boot

    def reports(self, **given: Any) -> dict[str, Any]:
        answer = self.cam.check_in(numbering=IMAGE, boot=self.boot, **given)
        if answer.status_code == 409:
            challenge = answer.json()["challenge"]
            given["challenge"] = challenge
            answer = self.cam.check_in(numbering=IMAGE, boot=self.boot, **given)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture
def twins(fleet: Fleet) -> tuple[Twin, Twin]:
    cam = fleet.device(site="lab")
    fleet.group("lab", "site=lab")
    fleet.assign("lab", "1.0.0")
    return Twin(cam, "11" * 8), Twin(cam, "22" * 8)


def since(fleet: Fleet) -> str | None:
    found: str | None = fleet.operator.get("/api/v1/devices/cam-1").json()["conflict_since"]
    return found


def conflict(twins: tuple[Twin, Twin]) -> None:
    for twin in (*twins, twins[0]):
        twin.reports()


def test_machines_that_take_turns_are_a_conflict_and_a_restart_is_none(
    fleet: Fleet, twins: tuple[Twin, Twin]
) -> None:
    first, second = twins
    for boot in range(20):  # it starts again and again, however often
        Twin(first.cam, f"{boot:016x}").reports()
    assert since(fleet) is None
    first.reports()
    second.reports()
    assert since(fleet) is None
    first.reports()
    assert since(fleet) == "2026-01-31T09:30:00Z"


def test_a_conflict_is_shown_told_and_counted(fleet: Fleet, twins: tuple[Twin, Twin]) -> None:
    fleet.device("cam-2")
    conflict(twins)
    listed = fleet.operator.get("/api/v1/devices?standing=conflict").json()["items"]
    assert [d["name"] for d in listed] == ["cam-1"]
    assert "pilotwave_devices_in_conflict 1.0" in fleet.operator.get("/metrics").text
    verbs = [e["verb"] for e in fleet.operator.get("/api/v1/events").json()["items"]]
    assert verbs.count("device.conflict") == 1
    why = fleet.operator.get("/api/v1/devices/cam-1/why?model=detector").json()
    assert [c["hold"] for c in why["candidates"]] == ["device_conflict"], why
    assert "two machines use the key of cam-1" in why["candidates"][0]["sentence"]


def test_a_device_in_conflict_is_offered_nothing_until_it_is_settled(
    fleet: Fleet, twins: tuple[Twin, Twin]
) -> None:
    cam = twins[0].cam
    assert cam.runs() == {"detector": "1.0.0"}
    conflict(twins)
    assert cam.runs() == {}
    assert fleet.act("cam-1", "settle").status_code == 200
    assert since(fleet) is None
    assert cam.runs() == {"detector": "1.0.0"}
    conflict(twins)
    assert since(fleet) is not None


def test_a_conflict_ends_when_one_machine_is_silent_for_long(
    fleet: Fleet, twins: tuple[Twin, Twin], clock: Any
) -> None:
    conflict(twins)
    clock.advance(seconds=9 * 900)
    twins[0].reports()
    assert since(fleet) is not None
    clock.advance(seconds=2 * 900)
    twins[0].reports()
    assert since(fleet) is None
    assert twins[0].cam.runs() == {"detector": "1.0.0"}


def test_a_conflict_ends_with_a_new_key(fleet: Fleet, twins: tuple[Twin, Twin]) -> None:
    conflict(twins)
    assert fleet.act("cam-1", "decommission").status_code == 200
    anew = SimulatedDevice("cam-1", fleet.client)
    assert anew.enrol(fleet.code(device="cam-1")).status_code == 201
    assert since(fleet) is None


def test_what_happens_on_either_machine_is_stored(
    fleet: Fleet, twins: tuple[Twin, Twin], clock: Any
) -> None:
    """Both count from the image's last event, so their numbers are the same."""
    shared = DeviceEvent(1, clock(), "enrolled", detail="in the image")
    for number, twin in enumerate((*twins, twins[0])):
        told = DeviceEvent(2, clock(), "failed", "detector", "1.0.0", detail=f"machine {number}")
        assert twin.reports(events=(shared, told))["acked_event"] == 2
    found = fleet.operator.get("/api/v1/devices/cam-1/events").json()["items"]
    assert [e["detail"] for e in found[::-1]] == [
        "in the image",
        "machine 0",
        "machine 1",
        "machine 2",
    ]

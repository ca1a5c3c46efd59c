"""What needs attention is listed, can be acknowledged, and comes back when it changes."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx
import pytest

from pilotwave_protocol.states import ModelState
from pilotwave_server.context import Context
from pilotwave_server.devices.service import get_device
from tests.conftest import FakeClock
from tests.server.dashboard.conftest import MakePerson, browser, make_person, sign_in
from tests.server.device_api.peer import SimulatedDevice, report
from tests.server.fleet_fixtures import Fleet, fleet, published

__all__ = ["browser", "fleet", "make_person", "published"]
API = "/api/v1/attention"


@pytest.fixture
def draft(fleet: Fleet) -> Fleet:
    """A rollout that waits for somebody to start it."""
    fleet.device("cam-1", line="a")
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    wish = {"model": "detector", "version": "1.1.0", "group": "cams", "policy": "standard"}
    assert fleet.operator.post("/api/v1/rollouts", json=wish).status_code == 201
    return fleet


def items(fleet: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.operator.get(API).json()["items"]
    return found


def test_an_entry_is_acknowledged_with_who_and_when(draft: Fleet) -> None:
    (entry,) = items(draft)
    assert (entry["object"], entry["acknowledged_by"]) == ("rollout/r1", None)
    body = {"key": entry["key"], "note": "ada starts it at six"}
    answer = draft.operator.post(f"{API}/acknowledge", json=body)
    assert answer.status_code == 200, answer.text
    (entry,) = items(draft)
    assert entry["acknowledged_by"] == "token/test-operator"
    assert entry["acknowledged_at"]
    assert entry["note"] == "ada starts it at six"
    verbs = draft.operator.get("/api/v1/events", params={"verb": "attention.acknowledge"})
    assert len(verbs.json()["items"]) == 1
    draft.operator.post(f"{API}/withdraw", json={"key": entry["key"]})
    assert items(draft)[0]["acknowledged_by"] is None


def test_an_entry_that_changes_needs_attention_again(draft: Fleet) -> None:
    (entry,) = items(draft)
    draft.operator.post(f"{API}/acknowledge", json={"key": entry["key"]})
    draft.operator.post("/api/v1/rollouts/r1/start")
    draft.operator.post("/api/v1/rollouts/r1/pause", json={"reason": "odd colours"})
    (now,) = items(draft)
    assert (now["state"], now["acknowledged_by"]) == ("paused", None)
    answer = draft.operator.post(f"{API}/acknowledge", json={"key": entry["key"]})
    assert (answer.status_code, answer.json()["code"]) == (404, "nothing_to_acknowledge")
    draft.operator.post(f"{API}/acknowledge", json={"key": now["key"]})
    draft.operator.post("/api/v1/rollouts/r1/resume")
    draft.operator.post("/api/v1/rollouts/r1/pause", json={"reason": "odd colours"})
    assert items(draft)[0]["acknowledged_by"] is None, "it came again"


def entry(fleet: Fleet, kind: str) -> dict[str, Any] | None:
    """The entry about devices in that kind of trouble."""
    found = [item for item in items(fleet) if item["object"] == f"devices/{kind}"]
    assert len(found) < 2
    return found[0] if found else None


def is_open(fleet: Fleet, kind: str, title: str) -> bool:
    """Whether the entry waits for somebody; the list that it leads to has as many devices."""
    found = entry(fleet, kind)
    assert found is not None
    assert found["title"] == title
    by = {"state": kind} if kind == "pending" else {"standing": kind}
    counted = fleet.operator.get("/api/v1/device-count", params=by).json()["devices"]
    assert title.startswith(f"{counted} ")
    return found["acknowledged_by"] is None


def acknowledge(fleet: Fleet, kind: str) -> None:
    found = entry(fleet, kind)
    assert found is not None
    answer = fleet.operator.post(f"{API}/acknowledge", json={"key": found["key"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["acknowledged_by"] is not None


FAILED = report("1.0.0", ModelState.FAILED, reason="selftest_mismatch", detail="case 3")
REFUSAL = {"reason": "directive_expired", "detail": "an hour ago"}


def test_failing_devices_need_attention_until_somebody_sees_to_them(
    fleet: Fleet, clock: FakeClock
) -> None:
    one, two, three = (fleet.device(f"cam-{n}") for n in (1, 2, 3))
    assert entry(fleet, "failing") is None
    one.check_in(FAILED)
    clock.advance(seconds=5)
    two.check_in(FAILED)
    assert is_open(fleet, "failing", "2 devices are failing")
    acknowledge(fleet, "failing")
    two.check_in(report("1.0.0"))  # who failed last is well again
    assert not is_open(fleet, "failing", "1 device is failing")
    clock.advance(seconds=5)
    one.check_in(FAILED)  # it fails as before
    assert not is_open(fleet, "failing", "1 device is failing")
    three.check_in(FAILED)
    assert is_open(fleet, "failing", "2 devices are failing")
    acknowledge(fleet, "failing")
    clock.advance(seconds=5)
    one.check_in(report("1.0.0"))
    one.check_in(FAILED)  # again, after it was well
    assert is_open(fleet, "failing", "2 devices are failing")
    fleet.act("cam-1", "decommission")
    fleet.act("cam-3", "decommission")
    assert entry(fleet, "failing") is None


def test_refusing_devices_need_attention_until_somebody_sees_to_them(
    fleet: Fleet, clock: FakeClock
) -> None:
    one, two = (fleet.device(f"cam-{n}") for n in (1, 2))
    one.check_in(refusal=REFUSAL)
    assert is_open(fleet, "refusing", "1 device refuses its orders")
    assert entry(fleet, "failing") is None, "the list of failing devices has it; it is said once"
    acknowledge(fleet, "refusing")
    clock.advance(minutes=5)
    one.check_in(refusal={**REFUSAL, "detail": "two hours ago"})
    assert not is_open(fleet, "refusing", "1 device refuses its orders")
    two.check_in(refusal=REFUSAL)
    assert is_open(fleet, "refusing", "2 devices refuse their orders")
    acknowledge(fleet, "refusing")
    two.check_in(refusal=None)
    assert not is_open(fleet, "refusing", "1 device refuses its orders")
    clock.advance(minutes=5)
    one.check_in(refusal={"reason": "wrong_key", "detail": ""})  # for another reason
    assert is_open(fleet, "refusing", "1 device refuses its orders")
    one.check_in(refusal=None)
    assert entry(fleet, "refusing") is None


def test_silent_devices_need_attention_until_somebody_sees_to_them(
    fleet: Fleet, clock: FakeClock
) -> None:
    one, two = (fleet.device(f"cam-{n}") for n in (1, 2))
    battery = fleet.device("cam-3")
    battery.check_in(facts={**battery.facts, "agent.profile": "battery"})
    assert entry(fleet, "silent") is None
    clock.advance(minutes=30)
    two.check_in()
    clock.advance(minutes=20)
    battery.check_in()
    assert is_open(fleet, "silent", "1 device is silent")
    acknowledge(fleet, "silent")
    clock.advance(minutes=30)
    assert is_open(fleet, "silent", "2 devices are silent")
    acknowledge(fleet, "silent")
    two.check_in()
    assert not is_open(fleet, "silent", "1 device is silent")
    clock.advance(minutes=17)
    assert is_open(fleet, "silent", "2 devices are silent")
    one.check_in()
    battery.check_in()
    assert entry(fleet, "silent") is None


def test_a_battery_device_that_goes_silent_is_new_though_it_was_heard_of_before(
    fleet: Fleet, clock: FakeClock
) -> None:
    """It has longer to report: it is heard of before the others, and is silent after them."""
    one, battery = fleet.device("cam-1"), fleet.device("cam-2")
    battery.check_in(facts={**battery.facts, "agent.profile": "battery"})
    clock.advance(minutes=10)
    one.check_in()
    told_to_come(fleet.context, "cam-1", every_s=60)
    clock.advance(minutes=10)
    assert is_open(fleet, "silent", "1 device is silent")
    acknowledge(fleet, "silent")
    clock.advance(minutes=30)
    assert is_open(fleet, "silent", "2 devices are silent")


def told_to_come(context: Context, device: str, *, every_s: int) -> None:
    with context.db.write() as session:
        get_device(session, device).check_in_s = every_s


def test_a_device_that_has_just_enrolled_is_given_time(fleet: Fleet, clock: FakeClock) -> None:
    device = SimulatedDevice("cam-1", fleet.client)
    device.enrol(fleet.code())
    assert entry(fleet, "silent") is None
    clock.advance(hours=1)
    assert is_open(fleet, "silent", "1 device is silent")


def test_pending_devices_need_attention_again_only_when_another_one_asks(
    fleet: Fleet, clock: FakeClock
) -> None:
    for n in (1, 2, 3):
        clock.advance(seconds=1)
        SimulatedDevice(f"cam-{n}", fleet.client).enrol()
    assert is_open(fleet, "pending", "3 devices are waiting to be accepted")
    acknowledge(fleet, "pending")
    fleet.act("cam-3", "reject")
    assert not is_open(fleet, "pending", "2 devices are waiting to be accepted")
    fleet.act("cam-1", "accept")
    assert not is_open(fleet, "pending", "1 device is waiting to be accepted")
    clock.advance(seconds=1)
    SimulatedDevice("cam-4", fleet.client).enrol()  # SQLite gives it the number of cam-3
    assert is_open(fleet, "pending", "2 devices are waiting to be accepted")
    acknowledge(fleet, "pending")
    fleet.act("cam-2", "reject")
    fleet.act("cam-4", "reject")
    assert entry(fleet, "pending") is None
    clock.advance(seconds=1)
    SimulatedDevice("cam-4", fleet.client).enrol()
    assert is_open(fleet, "pending", "1 device is waiting to be accepted")


def test_an_acknowledgement_is_withdrawn_after_devices_left(fleet: Fleet, clock: FakeClock) -> None:
    for n in (1, 2):
        clock.advance(seconds=1)
        SimulatedDevice(f"cam-{n}", fleet.client).enrol()
    acknowledge(fleet, "pending")
    fleet.act("cam-2", "reject")
    found = entry(fleet, "pending")
    assert found is not None
    fleet.operator.post(f"{API}/withdraw", json={"key": found["key"]})
    assert is_open(fleet, "pending", "1 device is waiting to be accepted")


def test_a_conflict_that_ends_does_not_bring_the_others_back(
    fleet: Fleet, clock: FakeClock, context: Context
) -> None:
    for n in (1, 2):
        fleet.device(f"cam-{n}")
        clock.advance(seconds=1)
        with context.db.write() as session:
            row = get_device(session, f"cam-{n}")
            row.conflict_since = row.conflict_at = clock()
    assert is_open(fleet, "conflict", "2 keys are used by two machines")
    acknowledge(fleet, "conflict")
    fleet.act("cam-2", "settle")
    assert not is_open(fleet, "conflict", "1 key is used by two machines")


def test_a_viewer_sees_and_does_not_acknowledge(draft: Fleet, viewer: httpx.Client) -> None:
    (entry,) = viewer.get(API).json()["items"]
    assert viewer.post(f"{API}/acknowledge", json={"key": entry["key"]}).status_code == 403


def test_the_page_acknowledges_and_keeps_it_findable(
    draft: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303

    def form(path: str) -> dict[str, str]:
        text = browser.get("/").text
        inside = text.split(f'action="{path}"')[1].split("</form>")[0]
        found = re.findall(r'name="(\w+)" value="([^"]*)"', inside)
        return {name: unescape(value) for name, value in found}

    wish = form("/attention/acknowledge")
    assert browser.post("/attention/acknowledge", data=wish).status_code == 303
    shown = browser.get("/").text
    assert "Nothing needs attention." in shown
    assert "Acknowledged</summary>" in shown or "Acknowledged (1)" in shown
    assert "person/ada" in shown
    assert browser.post("/attention/withdraw", data=form("/attention/withdraw")).status_code == 303
    assert 'action="/attention/acknowledge"' in browser.get("/").text

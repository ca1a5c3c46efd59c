"""A device that cannot do as it is told is failing wherever it is counted, with what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pilotwave_protocol.messages.check_in import DeviceEvent, ModelReport
from pilotwave_protocol.states import ModelState as S
from tests.conftest import START
from tests.server.device_api.peer import installed
from tests.server.fleet_fixtures import Fleet

CLOCK = "issued 2026-01-31T09:30:00Z, but here it is only 2001-01-01T00:00:00Z"
SET_IT = "this device's clock says 2001-01-01T00:00:00Z; set it"


def why(fleet: Fleet) -> str:
    answer = fleet.operator.get("/api/v1/devices/cam-1/why", params={"model": "detector"})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["sentence"])


def failing(fleet: Fleet) -> list[dict[str, Any]]:
    answer = fleet.operator.get("/api/v1/devices", params={"standing": "failing"})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_a_device_that_refuses_its_orders_is_failing_and_why_says_what_to_do(fleet: Fleet) -> None:
    device = fleet.device("cam-1", line="a")
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.1.0")
    assert not failing(fleet)
    device.check_in(refusal={"reason": "not_yet_valid", "detail": CLOCK})
    assert [item["name"] for item in failing(fleet)] == ["cam-1"]
    assert f"it refuses its orders: {CLOCK}; {SET_IT}" in why(fleet)
    device.check_in(refusal=None)
    assert not failing(fleet)
    assert "refuses" not in why(fleet)


def test_why_says_that_a_version_failed_there_and_how_to_try_it_again(fleet: Fleet) -> None:
    device = fleet.device("cam-1", line="a")
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.1.0")
    old, new = installed("1.0.0", 1), installed("1.1.0", 2)
    told = {"reason": "selftest_load", "detail": "it does not load"}
    device.check_in(ModelReport("detector", S.FAILED, old, candidate=new, **told))  # type: ignore[arg-type]
    assert (
        "1.1.0 failed here (it does not load); it stays on 1.0.0 until "
        "`pilotwave devices retry cam-1 --model detector`" in why(fleet)
    )
    device.check_in(ModelReport("detector", S.HEALTHY, new))
    assert "failed here" not in why(fleet)


def gauge(fleet: Fleet, name: str) -> str:
    found = re.search(
        rf"^pilotwave_devices_{name} (\S+)$", fleet.operator.get("/metrics").text, re.M
    )
    return found[1] if found else "none"


def test_a_refusal_is_an_event_when_it_begins_and_when_it_ends(fleet: Fleet) -> None:
    device = fleet.device("cam-1")

    def told() -> list[tuple[str, Any]]:
        lines = fleet.operator.get("/api/v1/events").json()["items"]
        seen = [e for e in lines if e["verb"].startswith("device.refusing")]
        assert all(e["object"] == e["actor"] == "device/cam-1" for e in seen)
        return [(e["verb"], e["after"]) for e in seen[::-1]]

    refused = {"reason": "not_yet_valid", "detail": CLOCK}
    for _ in range(3):
        assert device.check_in(refusal=refused).status_code == 200
        assert told() == [("device.refusing", refused)]
    for _ in range(2):
        assert device.check_in(refusal=None).status_code == 200
        assert told() == [("device.refusing", refused), ("device.refusing_end", None)]
    device.check_in(refusal=refused)
    assert len(told()) == 3


def test_metrics_count_those_that_refuse_and_those_that_fail(fleet: Fleet) -> None:
    one, other = fleet.device("cam-1"), fleet.device("cam-2")
    assert (gauge(fleet, "refusing"), gauge(fleet, "failing")) == ("0.0", "0.0")
    one.check_in(refusal={"reason": "not_yet_valid", "detail": CLOCK})
    told = {"reason": "selftest_load", "detail": "it does not load"}
    other.check_in(ModelReport("detector", S.FAILED, candidate=installed("1.1.0", 2), **told))  # type: ignore[arg-type]
    assert (gauge(fleet, "refusing"), gauge(fleet, "failing")) == ("1.0", "2.0")
    for name in ("cam-1", "cam-2"):
        assert fleet.act(name, "decommission").status_code == 200
    assert (gauge(fleet, "refusing"), gauge(fleet, "failing")) == ("0.0", "0.0")
    assert not failing(fleet)


@pytest.mark.parametrize(
    ("reason", "detail", "todo"),
    [
        ("not_yet_valid", CLOCK, SET_IT),
        (
            "not_yet_valid",
            "this device's clock (2001-01-01T00:00:00Z) is behind the order, issued "
            "2026-01-31T09:30:00Z; set the clock",
            SET_IT,
        ),
        ("not_yet_valid", "issued in the time to come", "set this device's clock"),
        ("not_yet_valid", "it is 2026-99-99T00:00:00Z", "set this device's clock"),
        (
            "directive_expired",
            "expired 2026-02-01T09:30:00Z; here it is 2099-01-01T00:00:00Z",
            "this device's clock says 2099-01-01T00:00:00Z; set it",
        ),
        (
            "directive_expired",
            "expired 2020-01-01T00:00:00Z; here it is 2020-01-01T00:00:01Z",
            "look at what lies between it and the server: a proxy, a portal, a slow link",
        ),
        ("disk_full", "", "free room on its disk"),
        (
            "bad_envelope",
            "<b>",
            "look at `pilotwave devices events cam-1`, and at its agent's log there",
        ),
    ],
)
def test_a_refusal_is_told_with_what_a_person_must_do(
    fleet: Fleet, reason: str, detail: str, todo: str
) -> None:
    fleet.device("cam-1").check_in(refusal={"reason": reason, "detail": detail})
    told = {"reason": reason, "detail": detail, "action": todo}
    assert failing(fleet)[0]["refusal"] == told
    assert fleet.operator.get("/api/v1/devices/cam-1").json()["refusal"] == told


def test_assigning_counts_those_that_refuse_and_those_where_the_version_failed(
    fleet: Fleet,
) -> None:
    fleet.group("cams", "line=a")
    cams = [fleet.device(f"cam-{n}", line="a") for n in range(4)]
    elsewhere = fleet.device("cam-9", line="b")
    old, new = installed("1.0.0", 1), installed("1.1.0", 2)
    assert [fleet.assign("cams", "1.0.0")[k] for k in ("refusing", "failed_before")] == [0, 0]
    told = {"reason": "selftest_load", "detail": "it does not load"}
    for device in (cams[0], elsewhere):
        device.check_in(ModelReport("detector", S.FAILED, old, candidate=new, **told))  # type: ignore[arg-type]
    device.check_in(refusal={"reason": "not_yet_valid", "detail": CLOCK})
    cams[1].check_in(refusal={"reason": "not_yet_valid", "detail": CLOCK})
    back = DeviceEvent(1, START, "rolled_back", "detector", "1.1.0", reason="operator_rollback")
    cams[2].check_in(ModelReport("detector", S.HEALTHY, old), events=(back,))
    made = fleet.assign("cams", "1.1.0")
    assert (made["devices"], made["refusing"], made["failed_before"]) == (4, 1, 1)
    assert fleet.assign("cams", "1.2.0")["failed_before"] == 0

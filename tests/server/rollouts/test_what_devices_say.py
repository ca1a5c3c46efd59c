"""A device that cannot do as it is told is failing wherever it is counted, with what to do."""

from __future__ import annotations

from typing import Any

from pilotwave_protocol.messages import ModelReport
from pilotwave_protocol.states import ModelState as S
from tests.server.device_api.peer import installed
from tests.server.fleet_fixtures import Fleet

CLOCK = "issued 2026-01-31T09:30:00Z, but here it is only 2001-01-01T00:00:00Z"


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
    assert f"it refuses its orders: {CLOCK}; set this device's clock" in why(fleet)
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
        "1.1.0 failed here (it does not load); it stays on 1.0.0 until `pilotwave devices retry`"
        in why(fleet)
    )
    device.check_in(ModelReport("detector", S.HEALTHY, new))
    assert "failed here" not in why(fleet)

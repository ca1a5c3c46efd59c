"""A device says of itself what it likes. It gets nobody else's model by it, and leaves no order."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.fleet_fixtures import Fleet, only_sqlite

GOLD: dict[str, Any] = {"tier": "gold", "fact.tier": "gold", "label.tier": "gold"}


def says(device: Any, **facts: Any) -> None:
    """The device reports these facts beside its own."""
    answer = device.check_in(facts={**device.facts, **facts})
    assert answer.status_code == 200, answer.text


def test_a_fact_of_a_labels_name_opens_no_group_and_no_model(fleet: Fleet) -> None:
    fleet.group("gold", "tier=gold")
    fleet.assign("gold", "1.2.0")
    real, liar = fleet.device("cam-1", tier="gold"), fleet.device("cam-2", tier="silver")
    other = fleet.device("cam-3")
    for device in (liar, other):
        says(device, **GOLD)
    assert real.runs() == {"detector": "1.2.0"}
    assert liar.runs() == {}
    assert other.runs() == {}
    members = fleet.operator.get("/api/v1/groups/gold/devices").json()["items"]
    assert [device["name"] for device in members] == ["cam-1"]
    listed = fleet.operator.get("/api/v1/devices", params={"selector": "tier"}).json()["items"]
    assert [device["name"] for device in listed] == ["cam-1", "cam-2"]


def test_a_fact_of_a_labels_name_leaves_no_group(fleet: Fleet) -> None:
    """`site!=paris` read the fact of a device without the label."""
    fleet.group("all", "tier!=free, !retired")
    fleet.assign("all", "1.1.0")
    device = fleet.device("cam-1")
    says(device, tier="free", retired=True, site="elsewhere")
    assert device.runs() == {"detector": "1.1.0"}


def test_a_group_by_fact_follows_what_the_device_says(fleet: Fleet) -> None:
    fleet.group("nanos", "fact.hw=nano")
    fleet.assign("nanos", "1.0.0")
    device = fleet.device("cam-1", hw="nano")
    assert device.runs() == {}
    says(device, hw="nano")
    assert device.runs() == {"detector": "1.0.0"}


@only_sqlite
@pytest.mark.parametrize("key", ["fact.arch", "fact.x", "fact.fact.x"])
def test_no_label_is_called_like_a_fact(fleet: Fleet, key: str) -> None:
    fleet.device("cam-1")
    labels = {"labels": {key: "x"}}
    for answer in (
        fleet.operator.patch("/api/v1/devices/cam-1", json=labels),
        fleet.operator.post("/api/v1/enrolment-codes", json=labels),
    ):
        assert answer.status_code == 422, answer.text
        assert "does not begin with" in answer.text
    assert fleet.operator.patch("/api/v1/devices/cam-1", json={"labels": {"fact": "x"}}).is_success

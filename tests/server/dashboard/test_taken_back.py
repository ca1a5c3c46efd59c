"""Pages and histories say who took a version back, and that it was taken back."""

from __future__ import annotations

from html import unescape
from typing import Any

import httpx
import pytest

from pilotwave_protocol.messages.check_in import DeviceEvent
from pilotwave_server.settings import Settings
from tests.conftest import START
from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.rollouts.test_engine_http import (
    GATES,
    Obeying,
    create,
    devices,
    in_state,
    live_until,
)

pytestmark = only_sqlite
CANARY = {"name": "canary", "canary": {"devices": ["cam-1", "cam-2"]}, "gates": GATES}
POLICY = {"waves": [CANARY, {"name": "everyone", "percent": 100}]}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Devices here report as fast as they can, on a clock that stands still."""
    return settings.model_copy(update={"check_ins_per_minute": 100_000})


@pytest.fixture
def page(browser: httpx.Client, make_person: MakePerson) -> httpx.Client:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    return browser


def stopped_by_a_gate(fleet: Fleet) -> tuple[str, list[Obeying]]:
    """A rollout to `cams` whose gate failed on cam-1 and cam-2."""
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    four = devices(fleet, 4)
    for cam in four[:2]:
        cam.bad.add("1.1.0")
    rollout = create(fleet, policy=POLICY)
    live_until(fleet, rollout, four, in_state("rolled_back"))
    return rollout, four


def went_back(fleet: Fleet, cam: Obeying) -> dict[str, Any]:
    """What the history says of a device that was sent back to what it ran before."""
    told = DeviceEvent(1, START, "rolled_back", "detector", "1.1.0", reason="operator_rollback")
    assert cam.device.check_in(events=(told,)).status_code == 200
    items = fleet.operator.get(f"/api/v1/devices/{cam.name}/history").json()["items"]
    found = [item for item in items if item["reason"] == "operator_rollback"]
    assert len(found) == 1
    return dict(found[0])


def test_a_history_names_the_rollout_whose_gate_took_a_version_back(
    fleet: Fleet, page: httpx.Client
) -> None:
    rollout, four = stopped_by_a_gate(fleet)
    found = went_back(fleet, four[1])
    assert found["rollout"] == rollout
    assert found["sentence"].startswith(f"taken back with rollout {rollout}: rolled back: install")
    shown = unescape(page.get("/devices/cam-2").text)
    history = shown.split("<h2>History</h2>")[1].split("</section>")[0]
    assert found["sentence"] in history
    assert "operator_rollback" not in history


def test_a_history_does_not_name_a_rollout_that_had_no_part_in_it(fleet: Fleet) -> None:
    _, four = stopped_by_a_gate(fleet)
    found = went_back(fleet, four[2])
    assert (found["rollout"], found["sentence"]) == (None, None)


def test_a_version_that_a_rollout_took_back_is_not_shown_as_offered(
    fleet: Fleet, page: httpx.Client
) -> None:
    assert "rolled back" not in page.get("/models/detector").text
    rollout, _ = stopped_by_a_gate(fleet)
    for path in ("/models/detector", "/models/detector/1.1.0"):
        shown = unescape(page.get(path).text)
        assert f'<a href="/rollouts/{rollout}">in rollout {rollout} for cams</a>' in shown
    assert "offered" not in page.get("/models/detector/1.1.0").text
    assert "rolled back" not in page.get("/models/detector/1.0.0").text


def test_the_first_page_says_at_once_what_an_operator_did_to_a_rollout(
    fleet: Fleet, page: httpx.Client
) -> None:
    fleet.group("cams", "line=a")
    devices(fleet, 1)
    rollout = create(fleet, policy={"waves": [{"name": "everyone", "percent": 100}]})
    api = f"/api/v1/rollouts/{rollout}"
    under_way = f'<a href="/rollouts/{rollout}">'
    assert under_way in page.get("/").text.split("Rolling out")[1]
    assert fleet.operator.post(f"{api}/abort", json={"reason": "wrong one"}).status_code == 200
    assert under_way not in page.get("/").text.split("Rolling out")[1]

"""A model is taken off a group's devices on the page: it says how many, and wants a yes."""

from __future__ import annotations

import re

import httpx

from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.device_api.peer import ONNX, report
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.rollouts.test_rollouts_http import create, open_wave

pytestmark = only_sqlite


def test_removing_a_model_names_count_and_consequence_and_wants_a_yes(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    cam = fleet.device("cam-1", site="berlin")
    fleet.group("berlin", "site=berlin")
    fleet.assign("berlin", "1.0.0")
    cam.check_in(report("1.0.0"), facts={**ONNX, "removes_models": True})
    shown = browser.get("/groups/berlin").text
    assert "Devices that run detector: 1. They delete its files, and applications" in shown
    found = re.search(r'name="csrf" value="([^"]+)"', shown)
    assert found
    wish = {"csrf": found.group(1), "model": "detector"}
    refused = browser.post("/groups/berlin/wipe", data=wish)
    assert refused.status_code == 422
    assert "Tick the box to confirm." in refused.text
    assert cam.directive().remove == ()
    done = browser.post("/groups/berlin/wipe", data={**wish, "sure": "yes"})
    assert done.status_code == 303
    assert cam.directive().remove == ("detector",)


def test_one_device_is_said_in_the_singular(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    fleet.device("cam-1", site="berlin")
    fleet.group("berlin", "site=berlin")
    assert '<p class="dim">1 device ·' in browser.get("/groups/berlin").text
    waves = [{"name": "one", "count": 1}, {"name": "all", "percent": 100}]
    document = {"name": "by-one", "waves": [{**w, "min_sample": 1} for w in waves]}
    made = create(fleet, group="berlin", document=document, start=True)
    open_wave(fleet, made["id"], 0)
    shown = browser.get(f"/rollouts/{made['id']}").text
    assert "at least 1 device." in shown
    assert "1 devices" not in shown


def test_a_group_with_rollouts_says_why_it_cannot_be_deleted(fleet: Fleet) -> None:
    fleet.group("berlin", "site=berlin")
    wish = {"group": "berlin", "model": "detector", "version": "1.0.0", "policy": "standard"}
    made = fleet.operator.post("/api/v1/rollouts", json={**wish, "allow_empty": True})
    assert made.status_code == 201
    refused = fleet.operator.delete("/api/v1/groups/berlin")
    assert refused.json()["code"] == "group_in_use"
    assert refused.json()["detail"] == (
        "berlin cannot be deleted: its rollouts are kept as a record"
    )

"""What cannot be undone, or concerns many devices, is asked first on the page, without a script."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet

# each act that asks, and what the question has to name
ASKS = {
    "/rollouts/r1/rollback": "Devices that took it: 0. They go back",
    "/rollouts/r1/abort": "Devices that took it: 0. They keep it",
    "/rollouts/r1/next": "whatever the gates say",
    "/devices/cam-1/do/revoke": "1 device",
    "/devices/cam-1/do/decommission": "1 device",
    "/devices/cam-1/do/reject": "1 device",
    "/groups/berlin/assign": "without waves and gates: 1",
    "/groups/berlin/delete": "Devices of berlin: 1",
    "/groups/berlin/change": "Devices of berlin: 1, and 0 with the new selector",
    "/models/detector/1.0.0/deny": "is no longer offered to any device",
    "/models/detector/1.0.0/purge": "Devices that run detector 1.0.0: 0.",
    "/settings/tokens/revoke": "1 token",
    "/settings/codes/revoke": "1 code",
    "/settings/webhooks/delete": "1 webhook",
    "/settings/people/unbind": "1 person",
    "/settings/people/totp-off": "1 person",
}
FIELDS = {"version": "detector 1.0.0", "id": "1", "name": "someone", "selector": "site=b"}


@pytest.fixture
def page(fleet: Fleet, browser: httpx.Client, make_person: MakePerson) -> httpx.Client:
    fleet.device("cam-1", site="berlin")
    fleet.group("berlin", "site=berlin")
    wish = {"group": "berlin", "model": "detector", "version": "1.0.0", "policy": "standard"}
    made = fleet.operator.post("/api/v1/rollouts", json={**wish, "start": True})
    assert made.json()["id"] == "r1"
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    return browser


def done_by_ada(fleet: Fleet) -> list[str]:
    found = fleet.operator.get("/api/v1/events?limit=100").json()["items"]
    return [event["verb"] for event in found if event["actor"] == "person/ada"]


def form(page: httpx.Client, path: str, **more: str) -> httpx.Response:
    csrf = re.search(r'name="csrf" value="(\w+)"', page.get("/").text)
    assert csrf
    return page.post(path, data={"csrf": csrf.group(1), **FIELDS, **more})


def test_each_such_act_asks_with_count_and_consequence_and_changes_nothing(
    fleet: Fleet, page: httpx.Client
) -> None:
    before = done_by_ada(fleet)
    for path, named in ASKS.items():
        answer = form(page, path)
        assert answer.status_code == 200, path
        assert "Are you sure?" in answer.text, path
        assert named in answer.text, path
        assert f'action="{path}"' in answer.text
        assert 'name="sure" value="yes"' in answer.text
        assert 'name="version" value="detector 1.0.0"' in answer.text
        assert "<script" not in re.sub(r"<script[^>]* src=[^>]*></script>", "", answer.text)
    assert done_by_ada(fleet) == before


def test_the_answer_does_it(fleet: Fleet, page: httpx.Client) -> None:
    again = form(page, "/rollouts/r1/rollback", sure="yes", reason="  ")
    assert "Are you sure?" in again.text
    done = form(page, "/rollouts/r1/rollback", sure="yes", reason="it sees ghosts")
    assert done.status_code == 303
    assert fleet.operator.get("/api/v1/rollouts/r1").json()["reason"].endswith("it sees ghosts")
    told = form(page, "/groups/berlin/assign").text
    assert "It was rolled back in r1 (berlin)." in told
    assert form(page, "/devices/cam-1/do/revoke", sure="yes").status_code == 303
    assert fleet.operator.get("/api/v1/devices/cam-1").json()["state"] == "revoked"


def test_a_rollout_of_a_version_that_was_rolled_back_elsewhere_asks(
    fleet: Fleet, page: httpx.Client
) -> None:
    fleet.group("paris", "site=paris")
    fleet.device("cam-2", site="paris")
    wish = {"group": "paris", "model": "detector", "version": "1.0.0", "policy": "standard"}
    assert form(page, "/rollouts/new", **wish).status_code == 303  # r2: a draft from before
    assert form(page, "/rollouts/r1/rollback", sure="yes", reason="ghosts").status_code == 303
    before = done_by_ada(fleet)
    fleet.group("rome", "site=rome")
    fleet.device("cam-3", site="rome")
    rome = {**wish, "group": "rome"}
    for path, told in (("/rollouts/new", rome), ("/rollouts/r2/start", {})):
        asked = form(page, path, **told)
        assert asked.status_code == 200
        assert "gets detector 1.0.0 in waves. It was rolled back in r1 (berlin)." in asked.text
    assert done_by_ada(fleet) == before
    seen = fleet.operator.post("/api/v1/rollouts/preview", json=rome).json()["warnings"]
    assert seen[0].startswith("detector 1.0.0 was rolled back in r1 (berlin): ")
    made = form(page, "/rollouts/new", **rome, sure="yes")
    assert made.status_code == 303
    made = form(page, "/rollouts/r2/start", sure="yes")
    assert fleet.operator.get("/api/v1/rollouts/r2").json()["state"] == "running"


def test_start_at_once_is_not_ticked_beforehand(page: httpx.Client) -> None:
    (box,) = re.findall(
        r'<input type="checkbox" name="start"[^>]*>', page.get("/rollouts/new").text
    )
    assert "checked" not in box

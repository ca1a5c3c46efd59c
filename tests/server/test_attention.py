"""What needs attention is listed, can be acknowledged, and comes back when it changes."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx
import pytest

from tests.server.dashboard.conftest import MakePerson, browser, make_person, sign_in
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
    assert "Nothing. All is on its way by itself." in shown
    assert "Acknowledged</summary>" in shown or "Acknowledged (1)" in shown
    assert "person/ada" in shown
    assert browser.post("/attention/withdraw", data=form("/attention/withdraw")).status_code == 303
    assert 'action="/attention/acknowledge"' in browser.get("/").text

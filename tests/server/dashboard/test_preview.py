"""What the page's preview shows is what the page's rollout takes."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest

from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.rollouts.test_rollouts_http import open_wave, why

pytestmark = only_sqlite
HALF = """
waves:
  - {name: half, percent: 50%, soak: 1d, min_sample: 100}
  - {name: everyone, percent: 100%}
"""


@pytest.fixture
def page(browser: httpx.Client, make_person: MakePerson) -> httpx.Client:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    return browser


def fields(page: httpx.Client, address: str) -> dict[str, str]:
    """The hidden fields of the form at an address, and what a person chooses there."""
    text = page.get(address).text
    form = text.split('id="wish"')[1].split("</form>")[0]
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
    chosen = {"model": "detector", "version": "1.1.0", "group": "cams", "policy": "half"}
    return {**{name: unescape(value) for name, value in hidden}, **chosen}


def taken_first(text: str) -> set[str]:
    return set(re.findall(r"<li>(cam-\d+) <span[^>]*>wave 1 ", text))


def test_the_page_takes_the_devices_that_its_preview_showed(
    fleet: Fleet, page: httpx.Client
) -> None:
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    names = [f"cam-{n}" for n in range(1, 9)]
    for name in names:
        fleet.device(name, line="a")
    held = fleet.act("cam-8", "models/detector/pin", version="1.0.0", reason="held")
    assert held.status_code == 200, held.text
    saved = fleet.operator.put("/api/v1/policies/half", json={"text": HALF})
    assert saved.status_code == 200, saved.text
    form = fields(page, "/rollouts/new")
    shown = [page.post("/rollouts/preview", data=form).text for _ in range(3)]
    first = taken_first(shown[0])
    assert first
    assert all(taken_first(text) == first for text in shown)
    assert "1 pinned, not affected" in shown[0]
    assert "cam-8 " in shown[0]
    assert "cam-8" not in first
    # a mistake shows the form once more, with the same draw
    wrong = page.post("/rollouts/new", data={**form, "version": "7.7.7"})
    assert f'name="salt" value="{form["salt"]}"' in wrong.text
    made = page.post("/rollouts/new", data={**form, "start": "yes"})
    assert made.status_code == 303, made.text
    rollout = made.headers["location"].rpartition("/")[2]
    open_wave(fleet, rollout, 0)
    assert {name for name in names if why(fleet, name)["version"] == "1.1.0"} == first


def test_each_form_draws_anew_and_a_salt_that_is_none_is_replaced(page: httpx.Client) -> None:
    drawn = {fields(page, "/rollouts/new")["salt"] for _ in range(3)}
    assert len(drawn) == 3
    assert fields(page, "/rollouts/new?salt=nonsense")["salt"] != "nonsense"
    kept = drawn.pop()
    assert fields(page, f"/rollouts/new?salt={kept}")["salt"] == kept

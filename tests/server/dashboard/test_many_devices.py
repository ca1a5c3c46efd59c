"""The list of devices: filtered on the page, and acted on many at a time."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import httpx
import pytest

from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite

pytestmark = [only_sqlite, pytest.mark.long]


@pytest.fixture
def page(browser: httpx.Client, make_person: MakePerson) -> httpx.Client:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    return browser


@pytest.fixture
def cams(fleet: Fleet) -> Fleet:
    for n in range(1, 8):
        fleet.device(f"cam-{n}", site="a" if n < 7 else "b")
    fleet.group("cams", "site=a")
    return fleet


def listed(text: str) -> list[str]:
    return re.findall(r'name="device" value="([^"]+)"', text)


def hidden(text: str, form: str) -> list[tuple[str, str]]:
    """The hidden fields of a form, as a browser sends them."""
    inside = text.split(form)[1].split("</form>")[0]
    found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', inside)
    return [(name, unescape(value)) for name, value in found]


def many(text: str) -> dict[str, str]:
    return dict(hidden(text, 'id="many"'))


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"name": "m-3"}, ["cam-3"]),
        ({"group": "cams", "name": "cam"}, [f"cam-{n}" for n in range(1, 7)]),
        ({"selector": "site=b"}, ["cam-7"]),
        ({"selector": "runs detector"}, []),
        ({"state": "online"}, [f"cam-{n}" for n in range(1, 8)]),
        ({"state": "refusing"}, []),
        ({"model": "detector", "version": "1.0.0"}, []),
    ],
)
def test_the_list_is_filtered(
    page: httpx.Client, cams: Fleet, query: dict[str, str], names: list[str]
) -> None:
    text = page.get("/devices", params=query).text
    assert listed(text) == names
    for name, value in query.items():
        if name in ("name", "selector"):
            assert f'name="{name}" value="{value}"' in text
    assert names or "No device matches." in text


def test_a_filter_with_a_fault_keeps_what_was_typed(page: httpx.Client, cams: Fleet) -> None:
    answer = page.get("/devices", params={"version": "latest", "name": "cam"})
    assert answer.status_code == 422
    assert 'value="latest"' in answer.text
    assert "expected PEP 440 or SemVer" in answer.text


def confirm(page: httpx.Client, form: Any) -> httpx.Response:
    """Answer the question with yes."""
    asked = page.post("/devices/bulk", data=form)
    assert asked.status_code == 200, asked.text
    fields: dict[str, list[str]] = {}
    for name, value in hidden(asked.text, 'action="/devices/bulk"'):
        fields.setdefault(name, []).append(value)
    return page.post("/devices/bulk", data=fields)


def labels(fleet: Fleet, device: str) -> dict[str, str]:
    found: dict[str, str] = fleet.operator.get(f"/api/v1/devices/{device}").json()["labels"]
    return found


def test_ticked_devices_are_acted_on_after_a_question(page: httpx.Client, cams: Fleet) -> None:
    form = many(page.get("/devices").text)
    form |= {"action": "label", "labels": "shift=night"}
    asked = page.post("/devices/bulk", data={**form, "device": ["cam-2", "cam-5"]})
    told = unescape(asked.text)
    assert "Devices affected: 2 (cam-2, cam-5): they get the labels shift=night." in told
    assert "shift" not in labels(cams, "cam-2")
    done = confirm(page, {**form, "device": ["cam-2", "cam-5"]})
    assert done.status_code == 303
    assert labels(cams, "cam-2") == {"site": "a", "shift": "night"}
    assert labels(cams, "cam-1") == {"site": "a"}
    assert "Done on 2 of 2 devices." in unescape(page.get(done.headers["location"]).text)


def test_all_that_match_are_acted_on_and_no_other(page: httpx.Client, cams: Fleet) -> None:
    form = many(page.get("/devices", params={"selector": "site=a"}).text)
    form |= {"all": "yes", "action": "decommission"}
    asked = page.post("/devices/bulk", data=form)
    assert "Devices affected: 6 (cam-1, cam-2, cam-3, cam-4, cam-5 and 1 more)" in asked.text
    assert confirm(page, form).headers["location"] == "/devices?selector=site%3Da"
    states = cams.operator.get("/api/v1/devices").json()["items"]
    assert [d["state"] for d in states] == ["decommissioned"] * 6 + ["enrolled"]


def test_nothing_happens_where_the_set_has_changed_since(page: httpx.Client, cams: Fleet) -> None:
    form = many(page.get("/devices", params={"selector": "site=a"}).text)
    form |= {"all": "yes", "action": "decommission"}
    cams.device("cam-9", site="a")
    answer = page.post("/devices/bulk", data={**form, "sure": "yes"})
    assert answer.status_code == 409
    assert "7 devices match now, and 6 were shown: cam-9 joined. Look again" in answer.text
    assert cams.operator.get("/api/v1/devices/cam-1").json()["state"] == "enrolled"


@pytest.mark.parametrize("asked", [False, True])
def test_nobody_takes_the_place_of_one_that_was_shown(
    page: httpx.Client, cams: Fleet, asked: bool
) -> None:
    """As many devices match as before, but one of them is another."""
    form = many(page.get("/devices", params={"selector": "site=a"}).text)
    form |= {"all": "yes", "action": "decommission"}
    if asked:  # between the question and the answer
        told = page.post("/devices/bulk", data=form)
        form = dict(hidden(told.text, 'action="/devices/bulk"'))
    cams.operator.patch("/api/v1/devices/cam-1", json={"labels": {"site": "b"}})
    cams.operator.patch("/api/v1/devices/cam-7", json={"labels": {"site": "a"}})
    answer = page.post("/devices/bulk", data={**form, "sure": "yes"})
    assert answer.status_code == 409
    said = "6 devices match now, and 6 were shown: cam-7 joined; cam-1 left. Look again"
    assert said in unescape(answer.text)
    states = {d["state"] for d in cams.operator.get("/api/v1/devices").json()["items"]}
    assert states == {"enrolled"}


@pytest.mark.parametrize("gone", ["digest", "sketch", "expected"])
def test_all_that_match_is_not_said_without_what_was_shown(
    page: httpx.Client, cams: Fleet, gone: str
) -> None:
    form = many(page.get("/devices", params={"selector": "site=a"}).text)
    form |= {"all": "yes", "action": "retry", "of": "detector"}
    without = {**form, gone: "9" * 5000 if gone == "expected" else ""}
    cams.device("cam-9", site="a")
    answer = page.post("/devices/bulk", data={**without, "sure": "yes"})
    assert answer.status_code == (422 if gone == "digest" else 409)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"action": "retry"}, "tick the devices, or all that match"),
        ({"device": "cam-1"}, "choose what is to be done"),
        ({"device": "cam-1", "action": "label", "labels": "night"}, "expected labels like"),
        ({"device": "cam-1", "action": "rollback", "of": "detector"}, "expected `reason`"),
    ],
)
def test_a_form_that_does_not_say_all_is_told_so(
    page: httpx.Client, cams: Fleet, form: dict[str, str], said: str
) -> None:
    csrf = many(page.get("/devices").text)["csrf"]
    answer = page.post("/devices/bulk", data={**form, "csrf": csrf, "sure": "yes"})
    assert answer.status_code == 422
    assert said in unescape(answer.text)


def test_counts_lead_to_their_devices(page: httpx.Client, cams: Fleet) -> None:
    page_of_version = page.get("/models/detector/1.0.0").text
    assert 'href="/devices?model=detector&amp;version=1.0.0"' in page_of_version
    assert 'href="/devices?model=detector&amp;version=1.0.0"' in page.get("/models/detector").text

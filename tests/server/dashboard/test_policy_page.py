"""A policy that is refused on the page keeps its name and text, and says why."""

from __future__ import annotations

import html
import re

import httpx
import pytest

from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.fleet_fixtures import Fleet, only_sqlite

pytestmark = only_sqlite
TEXT = "name: mine\nwaves:\n  - {name: all, percent: 100}\ncolour: <blue>\n"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("mine", TEXT, "colour"),
        ("mine", "waves: [", "line"),
        ("No Name", TEXT.replace("colour: <blue>\n", ""), "No Name"),
    ],
)
def test_a_refused_policy_keeps_what_was_typed(
    fleet: Fleet, browser: httpx.Client, make_person: MakePerson, name: str, text: str, said: str
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/policies/new").text)
    assert found
    answer = browser.post("/policies/new", data={"csrf": found[1], "name": name, "text": text})
    assert answer.status_code == 422
    shown = answer.text
    assert f'value="{name}"' in shown
    typed = re.search(r"<textarea[^>]*>(.*?)</textarea>", shown, re.DOTALL)
    assert typed
    assert html.unescape(typed[1]).strip() == text.strip()
    assert 'aria-describedby="faults"' in shown
    faults = shown.partition('id="faults"')[2]
    assert said in html.unescape(faults)

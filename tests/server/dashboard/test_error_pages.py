"""Where a page is not there or fails, a person gets a page, and a program a problem."""

from __future__ import annotations

import httpx
import pytest

from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.fleet_fixtures import only_sqlite

pytestmark = only_sqlite
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/models/detector/1.0.0/deny", 405),
        ("GET", "/devices/NOT+A+NAME", 422),
        ("GET", "/devices/cam-9", 404),
        ("PUT", "/devices", 405),
        ("DELETE", "/login", 405),
        ("POST", "/nowhere", 404),
        ("GET", "/devices/", 404),
        ("GET", "/devices/a%00b", 422),  # refused before any route is asked
        ("GET", "/devices?name=a%00b", 422),
    ],
)
def test_a_person_gets_a_page(
    browser: httpx.Client, make_person: MakePerson, method: str, path: str, status: int
) -> None:
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    answer = browser.request(method, path, headers=HTML)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert 'class="bar"' in answer.text
    assert 'href="/"' in answer.text
    if status == 405:
        assert answer.headers["allow"]


def test_a_stranger_gets_a_page_without_the_fleet_on_it(browser: httpx.Client) -> None:
    answer = browser.get("/nowhere", headers=HTML)
    assert (answer.status_code, 'class="bar"' in answer.text) == (404, False)
    assert "Not found" in answer.text


@pytest.mark.parametrize(
    "path", ["/api/v1/nowhere", "/device/v1/nowhere", "/tuf/metadata/nowhere", "/blobs/nowhere"]
)
def test_programs_get_problems_whatever_they_accept(client: httpx.Client, path: str) -> None:
    answer = client.get(path, headers=HTML)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_program_that_asks_for_a_page_gets_a_problem(client: httpx.Client) -> None:
    answer = client.get("/nowhere", headers={"Accept": "application/json"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "no_such_route"

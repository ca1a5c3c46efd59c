"""A form that will not do comes again: what was typed stays, what is wrong stands beside it."""

from __future__ import annotations

import httpx
import pytest

from tests.server.dashboard.conftest import MakePerson, sign_in
from tests.server.dashboard.test_device_page import beside, post
from tests.server.fleet_fixtures import Fleet, only_sqlite

pytestmark = only_sqlite
ROLLOUT = {"model": "detector", "version": "1.1.0", "policy": "standard"}


@pytest.fixture
def ada(fleet: Fleet, browser: httpx.Client, make_person: MakePerson) -> httpx.Client:
    """Somebody signed in, on a fleet of `cam-1` in the group `berlin`."""
    make_person("ada")
    assert sign_in(browser, "ada").status_code == 303
    fleet.device("cam-1", site="berlin")
    fleet.group("berlin", "site=berlin")
    return browser


@pytest.mark.parametrize(
    ("path", "given", "field", "status"),
    [
        # the server's own "no", beside the field that its code belongs to
        ("/groups", {"name": "paris", "selector": "site=="}, "selector", 422),
        ("/groups", {"name": "berlin", "selector": "site=x"}, "name", 409),
        ("/groups/berlin/change", {"selector": "site=="}, "selector", 422),
        ("/rollouts/new", {**ROLLOUT, "group": "nowhere"}, "group", 404),
        ("/settings/people/add", {"name": "ada", "role": "viewer"}, "name", 409),
        ("/settings/webhooks/add", {"name": "chat", "url": "ftp://example.org"}, "url", 422),
        # a document that could not be read, beside the field that is not as expected
        ("/groups", {"name": "No Name", "selector": ""}, "name", 422),
        ("/rollouts/new", {**ROLLOUT, "group": "berlin", "start_at": "soon"}, "start_at", 422),
        ("/settings/people/add", {"name": "No Name", "role": "viewer"}, "name", 422),
    ],
)
def test_a_form_that_will_not_do_comes_again(
    ada: httpx.Client, path: str, given: dict[str, str], field: str, status: int
) -> None:
    answer = post(ada, path, **given)
    assert answer.status_code == status
    assert beside(answer, field)
    if given[field]:
        assert given[field] in answer.text


def test_what_is_not_there_has_no_form_to_come_again(ada: httpx.Client) -> None:
    for path in ("/groups/nowhere/delete", "/devices/nowhere/labels", "/settings/tokens/revoke"):
        answer = post(ada, path, sure="yes", id="0", labels="")
        assert (answer.status_code, 'id="wrong-' in answer.text) == (404, False), path


def test_a_new_secret_is_shown_once_and_never_kept(ada: httpx.Client) -> None:
    answer = post(ada, "/settings/tokens/add", name="ci", role="viewer")
    assert answer.status_code == 200
    assert "pw_" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "pw_" not in ada.get("/settings/tokens").text

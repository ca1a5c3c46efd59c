"""Signing in with OpenID Connect, against a provider over HTTP: honest, and lying in each way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from pilotwave_server.app import create_app
from pilotwave_server.context import Context
from pilotwave_server.operators import people
from pilotwave_server.operators.roles import Role
from pilotwave_server.settings import Settings
from tests.peers.oidc import CLIENT, SECRET, Provider
from tests.server.fleet_fixtures import only_sqlite
from tests.servers import RunningServer, run_in_thread

pytestmark = only_sqlite


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    provider = Provider()
    with run_in_thread(provider.app()) as server:
        provider.url = server.url
        yield provider


@pytest.fixture
def provider(running: Provider) -> Provider:
    running.claims, running.lies = {"preferred_username": "ada"}, set()
    return running


@pytest.fixture
def server(settings: Settings, provider: Provider) -> Iterator[RunningServer]:
    given: dict[str, Any] = {
        "oidc_issuer": provider.url,
        "oidc_client_id": CLIENT,
        "oidc_client_secret": SECRET,
        "oidc_name": "Acme Login",
    }
    with run_in_thread(create_app(settings.model_copy(update=given))) as running:
        yield running


@pytest.fixture
def ada(context: Context) -> None:
    with context.db.write() as session:
        people.create_person(
            session, name="ada", role=Role.OPERATOR, actor="server", now=context.clock()
        )


@pytest.fixture
def browser(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def there_and_back(browser: httpx.Client, next: str = "/devices") -> httpx.Response:
    off = browser.get("/login/oidc", params={"next": next})
    assert off.status_code == 303, off.text
    back = httpx.get(off.headers["location"], timeout=30)
    return browser.get(back.headers["location"])


def test_somebody_with_an_account_comes_in_and_lands_where_they_wanted(
    browser: httpx.Client, ada: None
) -> None:
    assert "Acme Login" in browser.get("/login").text
    answer = there_and_back(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/devices")
    assert browser.get("/devices").status_code == 200
    assert there_and_back(browser).status_code == 303


def test_nobody_is_made_from_nothing(browser: httpx.Client) -> None:
    answer = there_and_back(browser)
    assert answer.status_code == 403
    assert "no account here" in answer.text
    assert browser.get("/devices").status_code == 303


def test_another_subject_does_not_take_over_a_tied_account(
    browser: httpx.Client, provider: Provider, ada: None
) -> None:
    assert there_and_back(browser).status_code == 303
    provider.claims["sub"] = "somebody-else"
    browser.cookies.clear()
    assert there_and_back(browser).status_code == 403


def test_an_email_counts_only_when_it_was_verified(
    browser: httpx.Client, provider: Provider, ada: None
) -> None:
    provider.claims = {"email": "ada@acme.example", "email_verified": False}
    assert there_and_back(browser).status_code == 403
    provider.claims["email_verified"] = True
    assert there_and_back(browser).status_code == 303


@pytest.mark.parametrize("lie", ["signature", "nonce", "audience", "issuer", "expired", "none"])
def test_an_id_token_that_lies_lets_nobody_in(
    browser: httpx.Client, provider: Provider, ada: None, lie: str
) -> None:
    provider.lies = {lie}
    assert there_and_back(browser).status_code == 403
    assert browser.get("/devices").status_code == 303


def test_an_answer_for_another_browser_is_refused(browser: httpx.Client, ada: None) -> None:
    off = browser.get("/login/oidc")
    back = httpx.get(off.headers["location"], timeout=30).headers["location"]
    parts = urlsplit(back)
    with httpx.Client(base_url=browser.base_url, timeout=60) as victim:
        assert victim.get(f"{parts.path}?{parts.query}").status_code == 403
    assert browser.get(f"{parts.path}?code=x&state=y").status_code == 403
    assert browser.get(f"{parts.path}?{parts.query}").status_code == 303
    assert browser.get(f"{parts.path}?{parts.query}").status_code == 403


def test_a_provider_that_is_down_is_told_in_a_sentence(
    settings: Settings,
) -> None:
    given = {"oidc_issuer": "http://127.0.0.1:9", "oidc_client_id": CLIENT}
    with run_in_thread(create_app(settings.model_copy(update=given))) as server:
        answer = httpx.get(f"{server.url}/login/oidc", timeout=30)
    assert answer.status_code == 503
    assert "does not answer" in answer.text

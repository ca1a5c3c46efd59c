"""A token and an address may send so many requests to the operator API, and no more."""

from __future__ import annotations

import httpx
import pytest

from pilotwave_server.app import create_app
from pilotwave_server.settings import Settings
from tests.conftest import FakeClock
from tests.server.fleet_fixtures import only_sqlite
from tests.servers import run_in_thread

pytestmark = only_sqlite


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_requests_per_second": 1})


def many(client: httpx.Client, count: int, path: str = "/api/v1/whoami") -> list[httpx.Response]:
    return [client.get(path) for _ in range(count)]


def test_a_token_that_sends_too_much_is_told_when_to_come_again(
    viewer: httpx.Client, operator: httpx.Client
) -> None:
    answers = many(viewer, 14)
    refused = [a for a in answers if a.status_code == 429]
    assert len(refused) >= 3
    assert all(a.json()["code"] == "too_many_requests" for a in refused)
    assert all(1 <= int(a.headers["retry-after"]) <= 5 for a in refused)
    assert operator.get("/api/v1/whoami").status_code == 200, "another token is not concerned"


def test_an_address_has_a_limit_of_its_own(client: httpx.Client, viewer: httpx.Client) -> None:
    """Strangers too; devices and health checks are not concerned."""
    assert 429 in {a.status_code for a in many(client, 50)}
    assert viewer.get("/api/v1/whoami").status_code == 429
    assert client.get("/healthz").status_code == 200
    assert client.get("/device/v1/directive").status_code == 401


def test_without_a_limit_nobody_is_refused(settings: Settings, clock: FakeClock) -> None:
    free = settings.model_copy(update={"api_requests_per_second": 0})
    with (
        run_in_thread(create_app(free, clock=clock)) as running,
        httpx.Client(base_url=running.url, timeout=30) as client,
    ):
        assert {a.status_code for a in many(client, 20)} == {401}

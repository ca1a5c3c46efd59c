"""Guessing is slowed down, and no stranger keeps anybody out by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from pilotwave_server.app import create_app
from pilotwave_server.context import Context
from pilotwave_server.errors import BadSetting
from pilotwave_server.operators import known, people, throttle
from pilotwave_server.operators.roles import Role
from pilotwave_server.serve import config
from pilotwave_server.settings import Settings, load_settings
from tests.server.dashboard.conftest import PASSWORD
from tests.server.fleet_fixtures import only_sqlite
from tests.servers import RunningServer, run_in_thread

pytestmark = only_sqlite
Login = Callable[..., httpx.Response]
HOME, OFFICE = "203.0.113.7", "2001:db8:1:2::7"


@pytest.fixture
def proxied(settings: Settings, clock: Any) -> Iterator[RunningServer]:
    """A server that believes the proxy on this machine: so that a test can come from anywhere."""
    given = settings.model_copy(update={"trusted_proxies": "127.0.0.1"})
    with run_in_thread(create_app(given, clock=clock)) as server:
        yield server


@pytest.fixture
def login(proxied: RunningServer) -> Iterator[Login]:
    headers = {"Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=proxied.url, headers=headers, timeout=60) as client:

        def login(name: str, password: str, at: str, mark: str = "") -> httpx.Response:
            client.cookies.clear()
            told = {"X-Forwarded-For": at}
            if mark:
                told["Cookie"] = f"{known.COOKIE}={mark}"
            form = {"name": name, "password": password}
            return client.post("/login", data=form, headers=told)

        yield login


@pytest.fixture
def ada(context: Context, clock: Any) -> None:
    with context.db.write() as session:
        for name in ("ada", "bob"):
            row = people.create_person(
                session, name=name, role=Role.ADMIN, actor="server", now=clock()
            )
            people.set_password(session, row, PASSWORD, actor="server", now=clock())


def guess(login: Login, name: str, times: int, at: Callable[[int], str]) -> list[int]:
    return [login(name, "wrong password", at(n)).status_code for n in range(times)]


def test_strangers_do_not_keep_out_who_was_here_before(login: Login, ada: None) -> None:
    """Six wrong passwords from anywhere kept the owner out, for up to 15 minutes at a time."""
    first = login("ada", PASSWORD, HOME)
    assert first.status_code == 303
    mark = first.cookies[known.COOKIE]
    answers = guess(login, "ada", throttle.FREE_BY_NAME + 5, lambda n: f"198.51.100.{n}")
    assert answers[-1] == 429, "many addresses together are slowed down too"
    assert login("ada", PASSWORD, "192.0.2.1").status_code == 429, "a stranger's address waits"
    assert (throttle.TooManyTries.code, throttle.TooManyTries.status) == ("too_many_tries", 429)
    assert login("ada", PASSWORD, HOME).status_code == 303, "an address that was here does not"
    assert login("ada", PASSWORD, "192.0.2.1", mark).status_code == 303, "nor does a browser"


def test_a_stranger_at_the_same_address_does_not_keep_the_browser_out(
    login: Login, ada: None
) -> None:
    mark = login("ada", PASSWORD, HOME).cookies[known.COOKIE]
    assert guess(login, "ada", throttle.FREE_BY_PAIR + 2, lambda n: HOME)[-1] == 429
    assert login("ada", PASSWORD, HOME).status_code == 429
    assert login("ada", PASSWORD, HOME, mark).status_code == 303
    assert login("bob", PASSWORD, "192.0.2.9").status_code == 303


def test_a_known_browser_opens_nothing_and_guesses_no_faster(login: Login, ada: None) -> None:
    mark = login("ada", PASSWORD, HOME).cookies[known.COOKIE]
    answers = [login("ada", "wrong password", f"192.0.2.{n}", mark).status_code for n in range(8)]
    assert answers[: throttle.FREE_BY_BROWSER] == [401] * throttle.FREE_BY_BROWSER
    assert answers[-1] == 429
    # it is ada's, and a stranger's for bob
    bobs = [login("bob", "wrong password", HOME, mark).status_code for _ in range(8)]
    assert bobs[-1] == 429


def test_one_who_owns_an_ipv6_network_is_one_address(login: Login, ada: None) -> None:
    answers = guess(login, "nobody", throttle.FREE_BY_PAIR + 2, lambda n: f"2001:db8::{n:x}")
    assert answers[-1] == 429


def test_a_forwarded_address_is_believed_from_nobody_by_default(
    settings: Settings, ada: None, clock: Any
) -> None:
    """uvicorn believes whoever connects from this machine, as everybody behind a proxy does."""
    headers = {"Sec-Fetch-Site": "same-origin"}
    with (
        run_in_thread(create_app(settings, clock=clock)) as server,
        httpx.Client(base_url=server.url, headers=headers, timeout=60) as client,
    ):
        answers = [
            client.post(
                "/login",
                data={"name": f"name{n}", "password": "wrong password"},
                headers={"X-Forwarded-For": f"198.51.100.{n}", "X-Forwarded-Proto": "https"},
            )
            for n in range(throttle.FREE_BY_ADDRESS + 2)
        ]
    assert answers[-1].status_code == 429


def test_of_what_a_proxy_forwards_the_last_stranger_counts(login: Login, ada: None) -> None:
    """What a client sends itself stands before what the proxy adds."""
    answers = guess(login, "ada", throttle.FREE_BY_PAIR + 2, lambda n: f"198.51.100.{n}, {HOME}")
    assert answers[-1] == 429
    assert login("ada", PASSWORD, OFFICE).status_code == 303


@pytest.mark.parametrize("wrong", ["*", "0.0.0.0/0", "::/0", "proxy.example", "127.0.0.1/99"])
def test_nobody_is_told_to_believe_everybody(settings: Settings, wrong: str) -> None:
    with pytest.raises(BadSetting, match="trusted_proxies"):
        load_settings(**{**settings.model_dump(), "trusted_proxies": wrong})


def test_the_program_serves_as_the_setting_says(settings: Settings) -> None:
    assert not config(settings, None).proxy_headers
    given = load_settings(**{**settings.model_dump(), "trusted_proxies": "10.0.0.0/8, ::1"})
    made = config(given, None)
    assert made.proxy_headers
    assert made.forwarded_allow_ips == "10.0.0.0/8,::1"


def test_a_crowd_of_logins_is_told_to_come_again_and_the_server_goes_on(
    proxied: RunningServer, ada: None
) -> None:
    headers = {"Sec-Fetch-Site": "same-origin"}

    def one(number: int) -> httpx.Response:
        told = {**headers, "X-Forwarded-For": f"198.51.100.{number}"}
        form = {"name": "ada", "password": "wrong password"}
        return httpx.post(f"{proxied.url}/login", data=form, headers=told, timeout=60)

    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(one, range(40)))
        assert httpx.get(f"{proxied.url}/healthz", timeout=60).status_code == 200
    statuses = {answer.status_code for answer in answers}
    assert statuses <= {401, 503, 429}
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0
            assert "try again in a moment" in answer.text

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from pilotwave_server.context import Context
from pilotwave_server.operators import people
from pilotwave_server.operators.roles import Role
from tests.server.fleet_fixtures import fleet, published
from tests.servers import RunningServer

__all__ = ["fleet", "published"]
PASSWORD = "correct horse battery"
MakePerson = Callable[..., None]


@pytest.fixture
def make_person(server: RunningServer, context: Context) -> MakePerson:
    """`make_person("ada", Role.ADMIN)` makes somebody with the password `PASSWORD`."""

    def make(name: str, role: Role = Role.ADMIN) -> None:
        now = context.clock()
        with context.db.write() as session:
            row = people.create_person(session, name=name, role=role, actor="server", now=now)
            people.set_password(session, row, PASSWORD, actor="server", now=now)

    return make


@pytest.fixture
def browser(server: RunningServer) -> Iterator[httpx.Client]:
    """A client that keeps cookies and does not follow redirects, as our own site's forms do."""
    headers = {"Sec-Fetch-Site": "same-origin"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


def sign_in(browser: httpx.Client, name: str, password: str = PASSWORD) -> httpx.Response:
    return browser.post("/login", data={"name": name, "password": password})

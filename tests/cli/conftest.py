"""One real server for all command-line tests, with a root of trust and keys in a folder.

Each test takes a model of its own, so that none sees another's versions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.operator import Operator
from tests.servers import ServerProcess

REPO = Path(__file__).parent.parent.parent
DIGITS = REPO / "examples" / "digits"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def fleet_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The program `pilotwave-server`, initialised, without a root of trust."""
    server = ServerProcess(tmp_path_factory.mktemp("fleet") / "data", settings={})
    server.init("test-fleet")
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def admin_person(fleet_server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """An admin whose keys folder holds all offline keys of the fleet, plain."""
    home = tmp_path_factory.mktemp("admin")
    pw = Operator(home, fleet_server.url, fleet_server.admin_token, home / "keys")
    pw("keys", "init", "--plain")
    return pw


@pytest.fixture
def pw(admin_person: Operator, tmp_path: Path) -> Operator:
    """The admin, working in a folder of this test."""
    return admin_person.but(home=tmp_path)


@pytest.fixture
def fresh(server_factory: Callable[..., ServerProcess], tmp_path: Path) -> Callable[..., Operator]:
    """`fresh()` starts a server without a root of trust and returns its admin."""

    def start() -> Operator:
        server = server_factory()
        return Operator(tmp_path, server.url, server.admin_token, tmp_path / "keys")

    return start


@pytest.fixture
def model(pw: Operator) -> str:
    """A new model whose publisher is `keys/publisher.pem`."""
    name = f"model-{next(_numbers)}"
    pw("models", "create", name, "--publisher", pw.keys / "publisher.pem")
    return name


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"thing-{next(_numbers)}"

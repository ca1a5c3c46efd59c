"""Two hosts with a data folder each on one PostgreSQL: the real programs."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests import databases, programs
from tests.cli.operator import Operator
from tests.server.device_api.peer import SimulatedDevice
from tests.servers import ServerProcess

pytestmark = pytest.mark.needs("postgresql")


class Hosts:
    """Host A, which made the fleet, and host B with an empty data folder."""

    def __init__(self, make: Callable[..., ServerProcess], folder: Path, url: str) -> None:
        self.folder, self.make = folder, make
        self.settings = {
            "database_url": url,
            "delta_processes": 0,
            "key_encryption_key": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        self.a = make(folder / "A", **self.settings)
        self.pw = Operator(folder, self.a.url, self.a.admin_token, folder / "keys")

    def join(self, name: str = "B") -> ServerProcess:
        return self.make(self.folder / name, **self.settings)

    def at(self, server: ServerProcess) -> Operator:
        return self.pw.but(url=server.url)


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with databases.fresh_postgres(request.getfixturevalue("postgres_url")) as url:
        yield url


@pytest.fixture
def hosts(server_factory: Callable[..., ServerProcess], tmp_path: Path, url: str) -> Hosts:
    return Hosts(server_factory, tmp_path, url)


def test_a_host_with_an_empty_folder_joins_and_signs_as_the_others(hosts: Hosts) -> None:
    b = hosts.join()
    assert not list((hosts.folder / "B").rglob("*.pem"))
    hosts.pw("keys", "init", "--plain")
    publisher = hosts.pw.keys / "publisher.pem"
    hosts.at(b)("models", "create", "m", "--publisher", publisher)
    hosts.at(b)("keys", "rotate", "online")
    hosts.pw("models", "create", "n", "--publisher", publisher)
    hosts.pw("keys", "rotate", "director")
    hosts.at(b)("models", "create", "o", "--publisher", publisher)
    hosts.at(b)("groups", "create", "all", "--selector", "site=x")
    code = hosts.pw.json("codes", "create", "--label", "site=x")["items"][0]["code"]
    with httpx.Client(base_url=hosts.a.url) as at_a, httpx.Client(base_url=b.url) as at_b:
        device = SimulatedDevice("cam-1", at_a)
        assert device.enrol(code).status_code == 201
        assert device.check_in().status_code == 200
        device.http = at_b
        assert device.poll().status_code == 200, "B believes A's token"


def test_a_fleet_whose_keys_are_files_elsewhere_is_not_joined_with_others(
    server_factory: Callable[..., ServerProcess], tmp_path: Path, url: str
) -> None:
    made = server_factory(tmp_path / "A", database_url=url)
    done = programs.run(
        programs.SERVER,
        ["init", "--fleet", "test-fleet", "--data", tmp_path / "B"],
        environment=made.environment,
        folder=tmp_path,
    )
    assert done.returncode == 2
    assert "pilotwave-server keys move" in done.stderr
    made.stop()
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    for server in (made, ServerProcess(tmp_path / "B", settings={})):
        server.environment = {**made.environment, "PILOTWAVE_KEY_ENCRYPTION_KEY": key}
        if server is made:
            moved = programs.run(
                programs.SERVER,
                ["keys", "move", "--data", made.data],
                environment=server.environment,
                folder=tmp_path,
            )
            assert "online-1.pem" in moved.stdout, moved.stderr
        server.init("test-fleet")
        assert not list(server.data.rglob("*.pem"))


def test_a_host_without_the_key_does_not_start(hosts: Hosts, tmp_path: Path) -> None:
    for key, said in (("", "no key-encryption key is set"), ("A" * 43 + "=", "another key")):
        environment = {
            **hosts.a.environment,
            "PILOTWAVE_KEY_ENCRYPTION_KEY": key,
        }
        for words in (["init", "--fleet", "test-fleet"], ["check"]):
            done = programs.run(
                programs.SERVER,
                [*words, "--data", hosts.a.data],
                environment=environment,
                folder=tmp_path,
            )
            assert done.returncode == 2
            assert said in done.stderr

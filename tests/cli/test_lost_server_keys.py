"""A server whose keys folder is lost, or another's: nothing is signed with keys nobody trusts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import programs
from tests.cli.operator import Operator
from tests.servers import ServerProcess

KINDS = ("online", "director")


class Lost:
    """A fleet with a root of trust and a model, whose server has ended."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        self.server, self.keys = server, server.data / "keys"
        self.pw = Operator(folder, server.url, server.admin_token, folder / "keys")
        self.pw("keys", "init", "--plain")
        self.pw("models", "create", "m", "--publisher", folder / "keys" / "publisher.pem")
        server.stop()

    def command(self, *words: str) -> tuple[int, str]:
        """Run a command of the server on its data; return its status and what it said."""
        done = programs.run(
            programs.SERVER,
            [*words, "--data", self.server.data],
            environment=self.server.environment,
            folder=self.server.data.parent,
        )
        return done.returncode, done.stdout + done.stderr

    def held(self) -> list[str]:
        return sorted(path.name for path in self.keys.glob("*-*.pem"))


@pytest.fixture
def lost(server_factory: Callable[..., ServerProcess], tmp_path: Path) -> Lost:
    made = Lost(server_factory(), tmp_path)
    made.keys.rename(tmp_path / "kept")
    return made


@pytest.mark.parametrize("words", [("init", "--fleet", "test-fleet"), ("check",), ("run",)])
def test_nothing_makes_or_takes_other_keys_in_silence(lost: Lost, words: tuple[str, ...]) -> None:
    status, said = lost.command(*words)
    assert status == 2
    assert "devices of this fleet trust another online and another director key" in said
    assert "backup" in said
    assert "pilotwave-server init --new-keys --fleet test-fleet" in said
    assert lost.held() == []


@pytest.mark.parametrize("kind", KINDS)
def test_one_lost_kind_is_named_alone(lost: Lost, tmp_path: Path, kind: str) -> None:
    (tmp_path / "kept").rename(lost.keys)
    (lost.keys / f"{kind}-1.pem").unlink()
    status, said = lost.command("init", "--fleet", "test-fleet")
    assert status == 2
    assert f"trust another {kind} key than" in said
    assert f"pilotwave keys rotate {kind}`" in said
    assert len(lost.held()) == 1


def test_the_backup_brings_the_server_back(lost: Lost, tmp_path: Path) -> None:
    (tmp_path / "kept").rename(lost.keys)
    assert lost.command("check")[0] == 0
    assert lost.command("init", "--fleet", "test-fleet")[0] == 0


def test_keys_that_are_lost_for_good_are_rotated_in(lost: Lost) -> None:
    assert lost.command("init", "--new-keys", "--fleet", "test-fleet")[0] == 0
    lost.server.start()
    for kind in KINDS:
        lost.pw("keys", "rotate", kind)
    lost.pw("models", "create", "n", "--publisher", lost.pw.keys / "publisher.pem")
    lost.server.stop()
    assert lost.command("check")[0] == 0
    assert not (lost.keys / "new-keys").exists()
    for path in lost.keys.glob("*-1.pem"):
        path.unlink()
    assert lost.command("check")[0] == 2, "what was allowed once is not allowed again"

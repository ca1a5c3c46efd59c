"""Programs of an older commit and of this one together: folders, databases and devices go on.

The older programs run from a copy of that commit's tree, with the libraries of this environment.
A checkout without its history does not have the commit; the header of the run says so, and the
tests are left out.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from demo.stage import REPO, Stage
from tests import history

pytestmark = [pytest.mark.slow, pytest.mark.needs("history"), pytest.mark.timeout(900)]

MODULES = {
    "pilotwave": "pilotwave_cli.main",
    "pilotwave-server": "pilotwave_server.cli",
    "pilotwave-agent": "pilotwave_agent.cli",
}
SETTINGS = {
    "PILOTWAVE_POLL_INTERVAL_S": "1",
    "PILOTWAVE_CHECK_IN_INTERVAL_S": "2",
    "PILOTWAVE_DELTA_PROCESSES": "0",
}
DIGITS = REPO / "examples" / "digits"
PATIENCE_S = 90


class Tree:
    """The programs of one commit."""

    def __init__(self, folder: Path) -> None:
        self.path = f"{folder / 'agent'}:{folder / 'server'}"

    @staticmethod
    def of(commit: str, folder: Path) -> Tree:
        history.unpack(commit, folder)
        return Tree(folder)


class MixedStage(Stage):
    """A stage whose server, agent and command line may each be of another commit."""

    def __init__(self, root: Path, tree: Tree) -> None:
        super().__init__(root, settings=SETTINGS)
        self.trees = dict.fromkeys(MODULES, tree)

    def command(self, program: str, words: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", MODULES[program], *words]

    def end_of(self, program: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(program, words),
            capture_output=True,
            text=True,
            timeout=120,
            env={**self.environment(), "PYTHONPATH": self.trees[program].path},
            cwd=self.root,
        )

    def start(self, name: str, program: str, *words: str) -> subprocess.Popen[bytes]:
        path = self.trees[program].path
        return self._start(name, *self.command(program, words), PYTHONPATH=path)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        assert process.wait(30) in (0, -15, 143)


class Story:
    """A fleet of one device that older programs made."""

    def __init__(self, stage: MixedStage) -> None:
        self.stage = stage
        init = ("--data", "data", "--fleet", "one", "--token-file", "admin.token")
        self.stage.run("pilotwave-server", "init", *init)
        self.start_server()
        self.stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        self.stage.pilotwave("models", "create", "m", "--publisher", "keys/publisher.pem")
        self.stage.pilotwave("groups", "create", "g", "--selector", "site=lab")
        self.enrol()
        self.start_agent()
        self.update("1.0.0")

    def enrol(self) -> None:
        made = self.stage.ask("codes", "create", "--label", "site=lab")
        code = (made["items"] if isinstance(made, dict) else made)[0]["code"]
        who = ("--server", self.stage.url, "--name", "cam-1", "--code", code)
        self.stage.run(
            "pilotwave-agent", "enrol", *who, "--root", "keys/root.json", "--data", "dev"
        )
        config = self.stage.root / "dev" / "agent.toml"
        config.write_text(config.read_text() + "\nprobation_s = 1\n")

    def start_server(self) -> None:
        if not self.stage.url:
            self.stage.start_server()
        else:
            port = self.stage.url.rpartition(":")[2]
            self.stage.start("server", "pilotwave-server", "run", "--data", "data", "--port", port)
            self.until(lambda: self.stage.run("pilotwave", "status", check=False), "Fleet")
        self.server = self.stage.processes[-1]

    def start_agent(self) -> None:
        self.agent = self.stage.start("agent", "pilotwave-agent", "run", "--data", "dev")

    def renew(self, program: str) -> None:
        self.stage.trees[program] = Tree(REPO)

    def renew_server(self) -> None:
        """As docs/upgrades.md says: stop, migrate, start."""
        self.stage.end(self.server)
        self.renew("pilotwave-server")
        self.stage.run("pilotwave-server", "migrate", "--data", "data")
        self.start_server()

    def renew_agent(self) -> None:
        self.stage.end(self.agent)
        self.renew("pilotwave-agent")
        self.start_agent()

    def update(self, version: str) -> None:
        """Publish a version, assign it, and wait until the device runs it and says so."""
        self.publish(version)
        self.assign(version)
        self.runs(version)

    def publish(self, version: str, *words: str) -> str:
        folder = DIGITS / ("1.0.0" if version.endswith("0.0") else "1.1.0")
        words = ("--variant", f"v={folder}", "--key", "keys/publisher.pem", *words)
        return self.stage.pilotwave("publish", "m", version, *words)

    def assign(self, version: str) -> None:
        self.stage.pilotwave("assign", *self.yes("assign"), "m", version, "--group", "g")

    def roll_back(self, version: str) -> None:
        words = ("cam-1", "--model", "m", "--reason", "back")
        self.stage.pilotwave("devices", "rollback", *words, *self.yes("devices", "rollback"))
        self.runs(version)

    def yes(self, *command: str) -> list[str]:
        """Older commands do not ask."""
        return ["--yes"] * ("--yes" in self.stage.pilotwave(*command, "--help"))

    def runs(self, version: str) -> None:
        link = self.stage.root / "dev" / "models" / "m" / "current"
        self.until(lambda: str(link.readlink()) if link.is_symlink() else "none", version)
        self.until(lambda: self.slot(), f"healthy {version}")

    def slot(self) -> str:
        """What the server shows of the device."""
        found = self.stage.ask("devices", "show", "cam-1")
        slots = found["models"] or [{"state": "none", "current_version": ""}]
        return f"{slots[0]['state']} {slots[0]['current_version']} {found.get('refusal')}"

    def until(self, look: Callable[[], str], wanted: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while wanted not in (said := look()):
            logs = {p.name: p.read_text()[-1500:] for p in self.stage.root.glob("*.log")}
            assert time.monotonic() < deadline, f"{wanted}: {said[-1500:]} {logs}"
            time.sleep(0.3)


@pytest.fixture(params=history.OLDER, scope="module")
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree.of(request.param, tmp_path_factory.mktemp("tree") / request.param)


@pytest.fixture
def story(old: Tree, tmp_path: Path) -> Iterator[Story]:
    stage = MixedStage(tmp_path, old)
    try:
        yield Story(stage)
    finally:
        stage.close()


def test_a_server_is_renewed_before_its_devices(story: Story) -> None:
    story.renew_server()
    story.renew("pilotwave")
    story.update("1.1.0")
    story.renew_agent()
    story.runs("1.1.0")
    story.update("2.0.0")
    story.roll_back("1.1.0")


def test_a_device_is_renewed_before_its_server(story: Story) -> None:
    story.renew_agent()
    story.runs("1.0.0")
    story.update("1.1.0")
    story.renew_server()
    story.renew("pilotwave")
    story.update("2.0.0")
    story.roll_back("1.1.0")


@pytest.mark.parametrize(
    ("words", "schema"),
    [(("--min-agreement", "0.97"), 2), (("--compare", "argmax"), 3)],
    ids=["schema 2", "schema 3"],
)
def test_an_older_agent_is_never_offered_a_manifest_that_it_cannot_read(
    story: Story, words: tuple[str, str], schema: int
) -> None:
    story.renew_server()
    story.renew("pilotwave")
    story.publish("1.1.0", *words)
    story.assign("1.1.0")
    why = ("devices", "why", "cam-1", "--model", "m")
    story.until(lambda: story.stage.pilotwave(*why), "update the agent first")
    story.update("2.0.0")  # it works on, and takes what it can read
    story.publish("2.1.0", *words)
    story.assign("2.1.0")
    story.until(lambda: story.stage.pilotwave(*why), f"m 2.1.0 has a manifest of schema {schema}")
    assert story.slot() == "healthy 2.0.0 None"
    story.renew_agent()
    story.runs("2.1.0")

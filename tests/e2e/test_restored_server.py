"""A server is restored from a backup, with real agents: they come back, without a visit."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stage import ForkedStage

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"
PATIENCE_S = 120
NAMES = ("cam-1", "cam-2")


class Story:
    """A server with two devices and one model, whose data folder can be put back."""

    def __init__(self, root: Path, names: Sequence[str] = NAMES, *, poll_s: int = 1) -> None:
        self.names = list(names)
        settings = {
            "PILOTWAVE_POLL_INTERVAL_S": str(poll_s),
            "PILOTWAVE_CHECK_IN_INTERVAL_S": str(3 * poll_s),
        }
        self.stage = stage = ForkedStage(
            root, settings={**settings, "PILOTWAVE_DELTA_PROCESSES": "0"}
        )
        init = ("--data", "data", "--fleet", "one", "--token-file", "admin.token")
        stage.run("pilotwave-server", "init", *init)
        stage.start_server()
        self.port = stage.url.rpartition(":")[2]
        stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        stage.pilotwave("models", "create", "m", "--publisher", "keys/publisher.pem")
        stage.pilotwave("groups", "create", "g", "--selector", "site=lab")
        for name in names:
            self.enrol(name)

    @property
    def url_of_devices(self) -> str:
        """Where devices ask."""
        return self.stage.url

    def enrol(self, name: str) -> None:
        made = self.stage.ask("codes", "create", "--label", "site=lab")
        code = (made["items"] if isinstance(made, dict) else made)[0]["code"]
        who = ("--server", self.url_of_devices, "--name", name, "--code", code)
        root = ("--root", "keys/root.json", "--data", name)
        self.stage.run("pilotwave-agent", "enrol", *who, *root)
        config = self.stage.root / name / "agent.toml"
        config.write_text(config.read_text() + "\nprobation_s = 1\n")
        self.stage.start(name, "pilotwave-agent", "run", "--data", name)

    def publish(self, version: str, folder: str) -> None:
        self.stage.pilotwave("publish", "m", version, "--variant", f"v={DIGITS / folder}", *SIGNED)

    def assign(self, version: str) -> None:
        self.stage.pilotwave("assign", "--yes", "m", version, "--group", "g")

    def stop(self) -> None:
        for process in self.stage.processes:
            if process.args and "pilotwave-server" in str(process.args):
                process.send_signal(signal.SIGTERM)
                process.wait(30)

    def start(self) -> None:
        words = ("run", "--data", "data", "--port", self.port)
        self.stage.start("server", "pilotwave-server", *words)
        until(lambda: self.stage.run("pilotwave", "status", check=False), "the server", at="Fleet")

    def devices(self) -> list[dict[str, Any]]:
        token = (self.stage.root / "admin.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=self.stage.url, headers=headers, timeout=60) as client:
            paths = [f"/api/v1/devices/{name}" for name in self.names]
            return [client.get(path).raise_for_status().json() for path in paths]

    def all_run(self, version: str, *, within_s: float = PATIENCE_S) -> float:
        """Wait until every device runs it and refuses nothing; return the seconds that took."""

        def standing() -> str:
            found = self.devices()
            slots = [m for d in found for m in d["models"]]
            good = all(
                (m["state"], m["current_version"]) == ("healthy", version) for m in slots
            ) and all(d["refusal"] is None for d in found)
            return "good" if good and len(slots) == len(self.names) else repr(found)

        return until(standing, f"all on {version}", at="good", within_s=within_s)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.stage.ask("status")
        return found


SIGNED = ("--key", "keys/publisher.pem")


def until(look: Callable[[], str], what: str, *, at: str, within_s: float = PATIENCE_S) -> float:
    began = time.monotonic()
    while at not in (said := look()):
        assert time.monotonic() < began + within_s, f"{what}: {said[-1500:]}"
        time.sleep(0.5)
    return time.monotonic() - began


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    made = Story(tmp_path)
    try:
        made.publish("1.0.0", "1.0.0")
        made.assign("1.0.0")
        made.all_run("1.0.0")
        made.stop()
        shutil.copytree(tmp_path / "data", tmp_path / "backup")
        made.start()
        made.publish("1.1.0", "1.1.0")
        made.assign("1.1.0")
        made.all_run("1.1.0")
        made.stop()
        shutil.rmtree(tmp_path / "data")
        shutil.copytree(tmp_path / "backup", tmp_path / "data")
        yield made
    finally:
        made.stage.close()


def test_devices_come_back_to_a_restored_server_by_themselves(story: Story) -> None:
    """Nobody runs a command; the publisher publishes again what was lost."""
    story.start()
    until(lambda: str(story.status()["notices"]), "a notice", at="was behind its devices")
    story.publish("1.1.0", "1.1.0")
    story.assign("1.1.0")
    took = story.all_run("1.1.0")
    story.publish("1.2.0", "1.0.0")
    story.assign("1.2.0")
    story.all_run("1.2.0")
    assert story.status()["ahead"] is None
    print(f"the last device was back after {took:.1f} s")


@pytest.mark.slow
def test_the_command_brings_them_back_to_what_the_backup_says(story: Story) -> None:
    """The publisher's role went back too: the online key is rotated, and nothing published."""
    said = story.stage.run("pilotwave-server", "restore", "--data", "data")
    assert "models-m: 2" in said
    story.start()
    until(lambda: str(story.status()["roles_behind"]), "the role is named", at="models-m")
    assert "keys rotate online" in story.stage.run("pilotwave", "status", check=False)
    story.stage.pilotwave("keys", "rotate", "online", "--dir", "keys")
    story.all_run("1.0.0")
    assert story.status()["revision"] > 1_000_000
    assert story.status()["roles_behind"] == []


@pytest.mark.slow
def test_a_role_is_signed_past_what_devices_know(story: Story) -> None:
    story.stage.run("pilotwave-server", "restore", "--data", "data")
    story.start()
    until(lambda: str(story.status()["roles_behind"]), "the role is named", at="models-m")
    (role,) = story.status()["roles_behind"]
    words = ("--role", role["role"], "--past", str(role["seen"]), "--dir", "keys")
    assert "renewed" in story.stage.pilotwave("renew", *words)
    story.all_run("1.0.0")


MANY = [pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]


@pytest.mark.parametrize("devices", [3, *MANY])
def test_a_fleet_ahead_of_its_backup_is_back_without_a_visit(tmp_path: Path, devices: int) -> None:
    """The drill: the server is lost with all that it held. Its backup was made while it ran; since
    then a version was published and rolled out, a device enrolled and another was revoked."""
    names = [f"cam-{n}" for n in range(devices)]
    slow = 1 if devices < 10 else 10
    (tmp_path / "passphrase").write_text("a passphrase of tests")
    locked = ("--passphrase-file", "passphrase")
    story = Story(tmp_path, names, poll_s=slow)
    try:
        story.publish("1.0.0", "1.0.0")
        story.assign("1.0.0")
        story.all_run("1.0.0", within_s=PATIENCE_S * slow)
        backup = ("--data", "data", "--to", "backup.tar", *locked)
        story.stage.run("pilotwave-server", "backup", *backup)
        story.publish("1.1.0", "1.1.0")
        story.assign("1.1.0")
        story.all_run("1.1.0", within_s=PATIENCE_S * slow)
        story.enrol("late")
        gone = story.names.pop()
        story.stage.pilotwave("devices", "revoke", "--yes", gone)
        story.stage.pilotwave("audit", "export", "--file", "audit.jsonl")
        story.stop()
        shutil.rmtree(tmp_path / "data")

        began = time.monotonic()
        words = ("--from", "backup.tar", "--audit", "audit.jsonl", *locked)
        said = story.stage.run("pilotwave-server", "restore", "--data", "data", *words)
        assert f"device.revoke device/{gone}" in said
        assert "device.enrol device/late" in said
        assert "version/m/1.1.0" in said
        story.start()
        story.stage.pilotwave("devices", "revoke", "--yes", gone)
        story.stage.pilotwave("keys", "rotate", "online", "--dir", "keys")
        story.all_run("1.0.0", within_s=PATIENCE_S * slow)
        took = time.monotonic() - began
        until(lambda: str(story.status()["notices"]), "the late one", at="device/late")
        story.publish("1.1.0", "1.1.0")
        story.assign("1.1.0")
        story.all_run("1.1.0", within_s=PATIENCE_S * slow)
        again = time.monotonic() - began
        print(f"{devices} devices: the last was back after {took / 60:.1f} min, on the lost version"
              f" after {again / 60:.1f} min, polls every {slow} s")  # fmt: skip
    finally:
        story.stage.close()

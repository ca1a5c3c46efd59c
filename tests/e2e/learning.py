"""Real devices whose owners let them learn, with their server; and a search for what must not leave
a device."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.e2e.fleet_of_one import wait_until
from tests.e2e.stage import ForkedStage

MODEL = "detector"
SETTINGS = """
metered = false
probation_s = 1

[learn]
allow = true
idle = false
"""
QUICK = {
    "PILOTWAVE_POLL_INTERVAL_S": "1",
    "PILOTWAVE_CHECK_IN_INTERVAL_S": "2",
    "PILOTWAVE_LOG_LEVEL": "debug",
}
KEY = ("--key", "keys/publisher.pem")


class LearningFleet:
    """The stage, and the agents that run on it, by the names of their devices."""

    def __init__(self, stage: ForkedStage) -> None:
        self.stage, self.root = stage, stage.root
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def enrol(self, name: str, url: str = "") -> None:
        """Have a device join; `url` is the server's as the device reaches it."""
        made = self.stage.ask("codes", "create", "--label", "site=here")
        code = (made["items"] if isinstance(made, dict) else made)[0]["code"]
        who = ("--server", url or self.stage.url, "--name", name, "--code", code)
        root = ("--root", "keys/root.json", "--data", name)
        self.stage.run("pilotwave-agent", "enrol", *who, *root)
        config = self.root / name / "agent.toml"
        config.write_text(config.read_text() + SETTINGS)
        self.start(name)

    def start(self, name: str) -> None:
        """Start a device's agent, for the first time or again."""
        self.agents[name] = self.stage.start(name, "pilotwave-agent", "run", "--data", name)

    def kill(self, name: str) -> None:
        """End a device's agent as a power cut would, and with it all that it started."""
        self.agents[name].kill()
        self.agents[name].wait()

    def publish(self, version: str, file: Path) -> None:
        words = ("--variant", f"onnx-fp32={file}", *KEY, "--no-try")
        self.stage.pilotwave("publish", MODEL, version, *words)

    def assign(self, version: str) -> None:
        """Have all devices run a version, and wait until they do."""
        self.stage.pilotwave("assign", "--yes", MODEL, version, "--group", "boards")
        for name in self.agents:
            self.wait_for(name, version)

    def wait_for(self, name: str, version: str) -> None:
        wait_until(lambda: self.runs(name) == version, lambda: f"{name} {version}")

    def runs(self, device: str) -> str:
        found = self.stage.ask("devices", "show", device)
        slot = next((m for m in found.get("models", []) if m["model"] == MODEL), {})
        return str(slot.get("current_version")) if slot.get("state") == "healthy" else ""

    def status(self, plan: str = "autumn-1") -> dict[str, Any]:
        """The experiment of a plan, with who took part in its newest round."""
        found: dict[str, Any] = self.stage.ask("learn", "status", MODEL, plan)
        return found

    def round(self) -> dict[str, Any]:
        """That round alone."""
        found: dict[str, Any] = self.status()["round"]
        return found


@contextmanager
def learning_fleet(root: Path, devices: Sequence[str]) -> Iterator[LearningFleet]:
    """Run a server with one model and one group, and these devices in it."""
    stage = ForkedStage(root, settings=QUICK)
    try:
        init = ("--data", "data", "--fleet", "field", "--token-file", "admin.token")
        stage.run("pilotwave-server", "init", *init)
        stage.start_server()
        stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
        stage.pilotwave("groups", "create", "boards", "--selector", "site=here")
        fleet = LearningFleet(stage)
        for name in devices:
            fleet.enrol(name)
        yield fleet
    finally:
        stage.close()


def holding(folder: Path, *arrays: np.ndarray) -> list[Path]:
    """Return the files below a folder that hold a row of one of these, as it lies in memory."""
    known = [row.tobytes() for array in arrays for row in array]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [path] * any(one in content for one in known)
    return found

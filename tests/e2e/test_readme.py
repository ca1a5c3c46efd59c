"""The README's first real use, command by command, as it is printed there."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

REPO = Path(__file__).parents[2]
PATIENCE_S = 180


def commands() -> list[str]:
    """Return the ten numbered commands of the README, without their remarks."""
    text = (REPO / "README.md").read_text()
    (block,) = re.findall(r"```sh\n(pilotwave-server init.*?)```", text, re.DOTALL)
    lines = block.splitlines()
    assert [int(n) for line in lines for n in re.findall(r"#\s+(\d+)", line)] == [*range(1, 11)]
    return [line.partition("#")[0].strip() for line in lines]


def rollout_commands() -> list[str]:
    """Return the commands with which the README brings the next version to the group."""
    text = (REPO / "README.md").read_text()
    (block,) = re.findall(r"The next version[^\n]*\n```sh\n(.*?)```", text, re.DOTALL)
    return [line.partition("#")[0].strip() for line in block.splitlines()]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Desk:
    """A person's terminal in an empty folder: a home, a path, the examples."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.home = folder / "home"
        self.home.mkdir()
        (folder / "examples").symlink_to(REPO / "examples")
        self.environment = {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PILOTWAVE_PASSPHRASE": "correct horse battery staple",
            "PILOTWAVE_PORT": str(self.port),
        }
        self.background: list[subprocess.Popen[str]] = []

    def type(self, line: str, *, said: str = "") -> str:
        """Run a line and return what it printed; one that ends in `&` goes on running."""
        line = line.replace("127.0.0.1:8600", f"127.0.0.1:{self.port}")
        if line.endswith("&"):
            self._start(line.removesuffix("&"))
            return ""
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=self.folder,
            env=self.environment,
            input=said,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _start(self, line: str) -> None:
        log = (self.folder / "background.log").open("a")
        with log:
            self.background.append(
                subprocess.Popen(
                    ["bash", "-c", f"exec {line}"],
                    cwd=self.folder,
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    text=True,
                )
            )

    def listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def leave(self) -> None:
        for process in self.background:
            process.send_signal(signal.SIGTERM)
        for process in self.background:
            process.wait(30)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.leave()


def wait_until(true: Callable[[], bool], desk: Desk) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < ends, (desk.folder / "background.log").read_text()
        time.sleep(0.1)


def rolls_out_the_next_version(desk: Desk, model: Path) -> None:
    publish, dry_run, create, show = rollout_commands()
    desk.type(publish)
    assert "it could not be created now" not in desk.type(dry_run)
    assert "running" in desk.type(create)
    expected = (REPO / "examples/digits/1.1.0/model.onnx").read_bytes()
    wait_until(lambda: model.read_bytes() == expected, desk)
    assert "detector 1.1.0 to berlin" in desk.type(show)


QUICK = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "2"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "quick",
    [
        pytest.param(True, id="with a probation of a second"),
        # two probations as they are set for people, a minute each, lie in between
        pytest.param(False, id="as it is printed", marks=pytest.mark.slow),
    ],
)
def test_ten_commands_lead_from_nothing_to_a_device_that_runs_a_model(
    desk: Desk, quick: bool
) -> None:
    if quick:
        desk.environment |= QUICK
    init, run, login, keys, create, publish, codes, enrol, agent, assign = commands()
    printed = desk.type(init)
    (token,) = re.findall(r"\bpw_\w+", printed)
    desk.type(run)
    wait_until(desk.listens, desk)
    assert "admin" in desk.type(login, said=f"{token}\n")
    for line in (keys, create, publish):
        desk.type(line)
    (code,) = re.findall(r"\b(?:[A-Z0-9]{4,}-)+[A-Z0-9]{4,}\b", desk.type(codes))
    assert "is enrolled in fleet acme" in desk.type(enrol.replace("CODE", code))
    if quick:
        config = desk.folder / "device" / "agent.toml"
        config.write_text(config.read_text() + "\nprobation_s = 1\n")
    desk.type(agent)
    desk.type(assign)
    model = desk.folder / "device/models/detector/current/model.onnx"
    wait_until(model.exists, desk)
    assert model.read_bytes() == (REPO / "examples/digits/1.0.0/model.onnx").read_bytes()
    status = desk.folder / "device" / "status.json"
    wait_until(lambda: '"state": "healthy"' in status.read_text(), desk)
    told = r"cam-1 online .* detector 1.0.0 \(healthy\) site=berlin"
    listed = "pilotwave devices list"
    # as soon as the agent has told it
    wait_until(lambda: bool(re.search(told, " ".join(desk.type(listed).split()))), desk)
    why = desk.type("pilotwave devices why cam-1 --model detector")
    assert "1.0.0" in why
    rolls_out_the_next_version(desk, model)
    # what is secret lies where only its owner reads
    for secret in ("keys/publisher.pem", "keys/root-1.pem", "device/identity/device.key"):
        assert (desk.folder / secret).stat().st_mode & 0o077 == 0
    assert token not in "".join(p.read_text() for p in desk.folder.glob("*.log"))

"""The process that takes part is killed at each of its steps: in the end there is one update, with
the same bytes each time that it was sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from pilotwave_agent.rounds import answered
from pilotwave_protocol.digest import sha256_hex
from tests.agent.learning.asking import AskingRegistry
from tests.agent.learning.test_take_part import ask_for_part, leave, sent
from tests.agent.learning.test_take_part import running as running
from tests.peers.device import Device
from tests.peers.registry import Reply, problem

pytestmark = pytest.mark.long
PATIENCE_S = 60
SETTINGS = """
metered = false
keep_free_mb = 0
[learn]
allow = true
idle = false
"""
BEFORE_THE_CHILD, BEFORE_IT_IS_SENT = "before the child", "on disk, before it is sent"
BEFORE_THE_MARK = "sent, before the mark"


class DeadlyRegistry(AskingRegistry):
    """Kills the process that asks it, at a step of that process."""

    def __init__(self) -> None:
        self.victim: subprocess.Popen[bytes] | None = None
        self.at = ""
        super().__init__()

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
        if path == "/device/v1/updates" and self._strikes(BEFORE_IT_IS_SENT):
            return problem(503, "nobody_hears_this")
        reply = super().answer(method, path, headers, body)
        if path == "/device/v1/learning":
            self._strikes(BEFORE_THE_CHILD)
        if path == "/device/v1/updates":
            self._strikes(BEFORE_THE_MARK)
        return reply

    def _strikes(self, at: str) -> bool:
        if self.at != at or self.victim is None:
            return False
        self.at = ""
        self.victim.kill()
        self.victim.wait()
        return True


@pytest.fixture
def registry() -> Iterator[DeadlyRegistry]:
    made = DeadlyRegistry()
    yield made
    made.stop()


@pytest.fixture
def asked(running: Device, registry: DeadlyRegistry) -> Device:
    """A device that has thirty examples and is asked for its part in a plan."""
    ask_for_part(running, registry)
    running.config_path.write_text(running.config_path.read_text() + SETTINGS)
    return running


def start(device: Device) -> subprocess.Popen[bytes]:
    words = ["-m", "pilotwave_agent.take_part", "--config", str(device.config_path)]
    process = subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(json.dumps({"token": "token", "parent": os.getpid()}).encode())
    process.stdin.close()
    return process


def in_peace(device: Device) -> None:
    assert start(device).wait(PATIENCE_S) == 0


def answered_once(device: Device, registry: DeadlyRegistry) -> None:
    """It has new examples and is asked again and again; there is one update all the same."""
    for _ in range(2):
        leave(device, 5)
        in_peace(device)
    assert len(set(registry.updates)) == 1
    sent = answered(device.layout, sha256_hex(registry.waiting[0]), registry.number)
    assert list(device.layout.updates.iterdir()) == [sent]


@pytest.mark.parametrize(
    ("at", "examples", "times"),
    [
        # nothing was on disk: it is computed anew, of what is there then
        (BEFORE_THE_CHILD, 35, 1),
        (BEFORE_IT_IS_SENT, 30, 1),
        # the server has it and the device does not know: the same again
        (BEFORE_THE_MARK, 30, 2),
    ],
)
def test_killed_at_a_step_it_answers_once(
    asked: Device, registry: DeadlyRegistry, at: str, examples: int, times: int
) -> None:
    registry.at, registry.victim = at, start(asked)
    assert registry.victim.wait(PATIENCE_S) < 0
    assert registry.at == ""
    registry.victim = None
    answered_once(asked, registry)
    assert sent(registry)[0].examples == examples
    assert len(registry.updates) == times


def test_killed_while_the_child_computes_it_takes_the_child_along(
    asked: Device, registry: DeadlyRegistry
) -> None:
    process = start(asked)
    children: list[psutil.Process] = []
    ends = time.monotonic() + PATIENCE_S
    while not children and time.monotonic() < ends:
        children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert not alive
    assert registry.updates == []
    answered_once(asked, registry)
    assert sent(registry)[0].examples == 35

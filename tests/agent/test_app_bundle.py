"""A program comes with its model in one version, and a unit of systemd's runs what `current` names.

The unit is a stand-in: a program that is started again whenever it ends, and a `systemctl` that
restarts it and says how often it ended by itself.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave_agent.settings.config import ProbeSettings
from pilotwave_agent.settings.tell import Tell
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import ModelState, Reason
from tests.agent.resident import wait_until
from tests.peers.device import Device
from tests.peers.registry import Registry

MODEL, UNIT = "counter", "counter.service"
SYSTEMCTL = """#!/bin/sh
cd {folder}
case "$1" in
  restart) touch asked; while test -e asked; do sleep 0.05; done;;
  is-failed) exit 1;;
  is-active) exit 0;;
  show) echo ActiveState=active; echo SubState=running; echo "NRestarts=$(cat restarts)";;
esac
"""
SERVES = """#!/bin/sh
test "$1" = selftest && exit 0
cat "$(dirname "$0")/model.txt" > {said}
exec sleep 1000
"""
CRASHES = """#!/bin/sh
test "$1" = selftest && exit 0
exit 3
"""


class Unit:
    """`Restart=always` of one program, which is there once a version is."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder = program, folder
        self.restarts = 0
        folder.mkdir()
        (folder / "systemctl").write_text(SYSTEMCTL.format(folder=folder))
        (folder / "systemctl").chmod(0o755)
        self.count(0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def count(self, restarts: int) -> None:
        self.restarts = restarts
        (self.folder / "restarts.new").write_text(str(restarts))
        (self.folder / "restarts.new").rename(self.folder / "restarts")

    def _run(self) -> None:
        process: subprocess.Popen[bytes] | None = None
        while not self._over.wait(0.02):
            asked = (self.folder / "asked").exists()
            if process is not None and (asked or process.poll() is not None):
                process.kill()
                process.wait()
                process = None
                self.count(0 if asked else self.restarts + 1)
            if process is None and self.program.exists():
                process = subprocess.Popen([str(self.program)])
            (self.folder / "asked").unlink(missing_ok=True)
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        self._over.set()
        self._thread.join(10)


@pytest.fixture
def unit(device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unit]:
    """The device's settings and the unit, as docs/agent-updates.md has them."""
    made = Unit(device.layout.models / MODEL / "current" / "counter", tmp_path / "systemd")
    monkeypatch.setenv("PATH", str(made.folder), prepend=os.pathsep)
    device.set(
        allow_unsafe_formats=True,
        probation_s=1.0,
        probe=ProbeSettings("systemd", unit=UNIT, interval_s=0.3, failures=1),
        tell=(Tell("systemd", models=(MODEL,), unit=UNIT, action="restart", timeout_s=10.0),),
    )
    yield made
    made.stop()


def bundle(registry: Registry, version: str, program: str) -> Entry:
    files = {"counter": program.encode(), "model.txt": f"weights of {version}\n".encode()}
    words = {"runtime": "command", "entrypoint": "counter", "unsafe_format": True}
    return registry.publish(MODEL, version, files, **words)  # type: ignore[arg-type]


def until_rest(device: Device) -> ModelState:
    """Work as the resident agent has it done, until there is nothing left to do."""
    for _ in range(20):
        done = device.work(refresh=True, boot=True)
        if done.next_wake_s is None:
            break
        time.sleep(min(done.next_wake_s, 0.5))
    return device.slot(MODEL).state


def test_a_program_and_its_model_change_together_and_a_crash_brings_both_back(
    registry: Registry, device: Device, unit: Unit, tmp_path: Path
) -> None:
    said = tmp_path / "said"

    def serves(version: str) -> bool:
        return said.exists() and said.read_text() == f"weights of {version}\n"

    for version in ("1.0.0", "1.1.0"):
        registry.order(bundle(registry, version, SERVES.format(said=said)))
        assert until_rest(device) is ModelState.HEALTHY, device.slot(MODEL)
        wait_until(lambda v=version: serves(v), version)  # type: ignore[misc]
    registry.order(bundle(registry, "1.2.0", CRASHES))
    assert until_rest(device) is ModelState.ROLLED_BACK
    slot = device.slot(MODEL)
    assert slot.current
    assert (slot.current.version, slot.reason) == ("1.1.0", Reason.PROBE_FAILED)
    assert f"systemd restarted {UNIT}" in (slot.detail or "")
    wait_until(lambda: serves("1.1.0") and unit.restarts == 0, "the program before")

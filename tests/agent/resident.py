"""The agent as people run it: the program, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.peers.device import Device

PATIENCE_S = 60.0


def run_agent(*words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run one command of `pilotwave-agent` to its end."""
    command = [sys.executable, "-m", "pilotwave_agent.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


@contextlib.contextmanager
def resident(device: Device, *, log: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run `pilotwave-agent run` as long as the block lasts; its words go to `log`, else to
    `agent.log` beside its settings."""
    command = [sys.executable, "-m", "pilotwave_agent.cli", "run", "--config"]
    with (log or log_of(device)).open("a") as words:
        process = subprocess.Popen([*command, str(device.config_path)], text=True, stderr=words)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log_of(device: Device) -> Path:
    return device.config_path.parent / "agent.log"


def wait_until(true: Callable[[], object], what: str, *, patience_s: float = PATIENCE_S) -> None:
    ends = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < ends, f"waited {patience_s:g} s for: {what}"
        time.sleep(0.02)


def settle(device: Device, **settings: object) -> None:
    """Write settings into the device's file, as a person would."""
    with device.config_path.open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in settings.items())


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that live."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def kill_all(process: subprocess.Popen[str]) -> None:
    """End an agent as a power cut does: it and what it started, at once."""
    for pid in (process.pid, *children_of(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()

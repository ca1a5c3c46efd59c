"""A short-lived process for learning that the resident agent starts, one at a time."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pilotwave_agent.host.log import say

_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Told:
    """What such a process is told: the settings' file, the device's token, who started it."""

    config: Path
    token: str
    parent: int


def read_told(module: str) -> Told:
    """Read what this process was started with."""
    parser = argparse.ArgumentParser(prog=module)
    parser.add_argument("--config", type=Path, required=True)
    arguments = parser.parse_args()
    told = json.loads(sys.stdin.buffer.read())
    return Told(arguments.config, told["token"], int(told["parent"]))


class LearnProcess:
    """A module that is run as `-m MODULE --config FILE`, with {"token", "parent"} on stdin."""

    def __init__(self, module: str, config_path: Path) -> None:
        self._module, self._path = module, config_path
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Say whether it is at work."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        return self._child is not None

    def start(self, token: str = "") -> None:
        """Start it; a machine that cannot says so."""
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", self._module, "--config", str(self._path)],
                stdin=subprocess.PIPE,
            )
            assert self._child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.write(
                    json.dumps({"token": token, "parent": os.getpid()}).encode()
                )
                self._child.stdin.close()
        except OSError as e:
            say(f"no process takes part in learning: {e}", level="warning")

    def close(self) -> None:
        """End it; it begins anew the next time."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_PATIENCE_S)
            self._child.kill()
            self._child.wait()
        self._child = None

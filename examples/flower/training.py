"""Flower's own programs on this machine's loopback: a SuperLink, SuperNodes, and a run of the app.

They have an environment of their own, as Flower's pins and Pilotwave's do not agree, and none of
our settings: no token reaches them. What they start ends with them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from demo.stage import CommandFailed
from pilotwave_cli.optimize.started import started_by

HERE = Path(__file__).resolve().parent
APP, REQUIREMENTS = HERE / "app", HERE / "requirements.txt"
# it reports each command to its makers, and asks them for newer releases, unless told not to
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
CONNECTION = '[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{}"\ninsecure = true\n'
LONGEST_RUN_S = 600
FROM_HERE = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")


def install(folder: Path) -> Path:
    """Make Flower's environment; return its Python. Raises `CommandFailed`."""
    told = [_python(), "-m", "venv", str(folder)]
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for words in (told, [*pip, "--no-input", "-r", str(REQUIREMENTS)]):
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise CommandFailed(f"`{' '.join(words)}` failed: {done.stderr.strip()[-800:]}")
    return python


def _python() -> str:
    """Return a Python that Flower has builds for."""
    if sys.version_info >= (3, 11):
        return sys.executable
    for name in ("python3.13", "python3.12", "python3.11"):
        if found := shutil.which(name):
            return found
    raise CommandFailed("Flower needs Python 3.11 or later; install one, or name an environment")


class Flower:
    """A SuperLink and SuperNodes; logs and Flower's own files go to `folder`."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.programs, self.folder = python.parent, folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs: list[IO[bytes]] = []
        self.address = f"127.0.0.1:{free_port()}"
        folder.mkdir()
        (folder / "config.toml").write_text(CONNECTION.format(self.address))

    def start_superlink(self) -> None:
        """Start it and wait until it listens. It would install what an app asks for."""
        words = ("--disable-runtime-dependency-installation", *self._listen(self.address))
        process = self._start("superlink", "flower-superlink", *words)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(_pair(self.address), 1):
                return
            time.sleep(0.2)
        raise CommandFailed(f"the SuperLink did not start: {self.said('superlink')}")

    def start_supernode(self, name: str, data: Path) -> None:
        """Start a node that trains on these images."""
        words = ("--superlink", self.address, "--node-config", f'data="{data}"')
        here = self._listen(f"127.0.0.1:{free_port()}")
        self._start(name, "flower-supernode", *words, *here)

    def train(self, start: Path, out: Path, nodes: int, rounds: int) -> None:
        """Have the nodes train from `start`; write what comes of it to `out`."""
        told = f'start="{start}" out="{out}" nodes={nodes} rounds={rounds}'
        words = (str(APP), "here", "--stream", "--run-config", told)
        process = self._start("run", "flwr", "run", *words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LONGEST_RUN_S)
        if process.poll() != 0 or not out.exists():
            how = f"status {process.poll()}, {self.said('run')}"
            raise CommandFailed(f"the run wrote no weights within {LONGEST_RUN_S} s: {how}")

    def said(self, name: str) -> str:
        """Return the end of what a program printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-1500:]

    def close(self) -> None:
        """End all programs, and what they started and left."""
        alive = [p for p in self.processes if p.poll() is None]
        started = set().union(*(started_by(p.pid) for p in alive)) - {p.pid for p in alive}
        for process in reversed(alive):
            process.send_signal(signal.SIGTERM)
        for process in reversed(alive):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for log in self.logs:
            log.close()

    def _start(self, name: str, program: str, *words: str) -> subprocess.Popen[bytes]:
        log = open(self.folder / f"{name}.log", "wb")  # noqa: SIM115 - closed by `close`
        own = {key: os.environ[key] for key in FROM_HERE if key in os.environ}
        home = {"HOME": str(self.folder), "FLWR_HOME": str(self.folder)}
        path = {"PATH": f"{self.programs}:{own.get('PATH', '')}"}  # it starts others of its own
        process = subprocess.Popen(
            [str(self.programs / program), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={**own, **home, **path, **QUIET},
        )
        self.processes.append(process)
        self.logs.append(log)
        return process

    @staticmethod
    def _listen(address: str) -> tuple[str, ...]:
        host, port = _pair(address)
        return ("--insecure", "--host", host, "--port", str(port))


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _pair(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)

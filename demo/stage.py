"""The demo's stage: a server and agents as processes, in one temporary folder.

It starts and ends programs and calls the command line as a person would. What is played is the
story's; no Pilotwave code is imported here.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

BIN = Path(sys.executable).parent
REPO = Path(__file__).resolve().parent.parent


class CommandFailed(Exception):
    """A command ended with another status than 0."""


@dataclass
class Stage:
    """Everything the demo started, under one folder."""

    root: Path
    url: str = ""
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    logs: list[IO[bytes]] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Return the environment of each program: ours, plus where the server is."""
        # nothing of a person's own settings may leak into the demo; compiled once, as installed
        leaks = ("PILOTWAVE_", "PYTHONDONTWRITEBYTECODE")
        own = {k: v for k, v in os.environ.items() if not k.startswith(leaks)}
        token = self.root / "admin.token"
        return {
            **own,
            "PILOTWAVE_URL": self.url,
            "PILOTWAVE_TOKEN": token.read_text().strip() if token.exists() else "",
            "PILOTWAVE_KEYS": str(self.root / "keys"),
            **self.settings,
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "COLUMNS": "120",
        }

    def run(self, program: str, *words: str, check: bool = True) -> str:
        """Run a command to its end and return what it printed."""
        done = self.end_of(program, words)
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()[-800:]
            raise CommandFailed(
                f"`{program} {' '.join(words)}` ended with {done.returncode}: {said}"
            )
        return done.stdout + ("" if check else done.stderr)

    def end_of(self, program: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; how it is started is a stage's own affair."""
        return subprocess.run(
            [str(BIN / program), *words],
            capture_output=True,
            text=True,
            timeout=120,
            env=self.environment(),
            cwd=self.root,
        )

    def pilotwave(self, *words: str) -> str:
        """Run a `pilotwave` command."""
        return self.run("pilotwave", *words)

    def ask(self, *words: str) -> Any:
        """Run a `pilotwave` command with --json and return its answer."""
        return json.loads(self.run("pilotwave", *words, "--json"))

    def start(self, name: str, program: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a program that stays; what it prints goes to NAME.log in the folder."""
        return self._start(name, str(BIN / program), *words)

    def start_python(self, name: str, module: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a module of the repository's own as a program that stays."""
        return self._start(name, sys.executable, "-m", module, *words, PYTHONPATH=str(REPO))

    def _start(self, name: str, *words: str, **settings: str) -> subprocess.Popen[bytes]:
        log = open(self.root / f"{name}.log", "ab")  # noqa: SIM115 - closed by `close`
        process = subprocess.Popen(
            words,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**self.environment(), **settings},
            cwd=self.root,
        )
        self.processes.append(process)
        self.logs.append(log)
        return process

    def start_server(self) -> None:
        """Start the server on a free port and learn its address from what it prints."""
        process = self.start("server", "pilotwave-server", "run", "--data", "data", "--port", "0")
        log = self.root / "server.log"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = re.search(r"listening on (http://\S+)", log.read_text(errors="replace"))
            if found:
                self.url = found.group(1)
                return
            if process.poll() is not None:
                break
            time.sleep(0.05)
        raise CommandFailed(f"the server did not start: {log.read_text(errors='replace')[-800:]}")

    def close(self) -> None:
        """End every program that was started here, and wait for it."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for log in self.logs:
            log.close()

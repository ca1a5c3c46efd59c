"""A person at a terminal: runs the real `pilotwave` program in an environment of their own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import programs


@dataclass(frozen=True)
class Operator:
    """`Operator(home, url, token)`; `pw("models", "list")` runs a command and expects success."""

    home: Path
    url: str
    token: str
    keys: Path
    extra: dict[str, str] = field(default_factory=dict)

    def run(self, *words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        given = self._environment()
        return programs.run(programs.CLI, words, environment=given, folder=self.home, stdin=stdin)

    def start(self, *words: object, out: Path) -> programs.Program:
        """Start a command that goes on; what it prints is in the file `out`."""
        err = out.with_suffix(".err")
        return programs.start(
            programs.CLI,
            words,
            environment=self._environment(),
            folder=self.home,
            stdout=out,
            stderr=err,
        )

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PILOTWAVE_", "COLUMNS"))}
        environment = {
            **kept,
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "PILOTWAVE_URL": self.url,
            "PILOTWAVE_TOKEN": self.token,
            "PILOTWAVE_KEYS": str(self.keys),
            **self.extra,
        }
        return {k: v for k, v in environment.items() if v}

    def at_terminal(self, *words: object, answer: str) -> tuple[int, str]:
        """Run a command at a terminal, answer its question; return its status and what it said."""
        ours, theirs = pty.openpty()
        program = [sys.executable, "-m", "pilotwave_cli.main", *map(str, words)]
        where = {"cwd": self.home, "env": self._environment()}
        process = subprocess.Popen(program, stdin=theirs, stdout=theirs, stderr=theirs, **where)  # type: ignore[call-overload]  # one dict of both
        os.close(theirs)
        said, answered = b"", False
        try:
            while piece := os.read(ours, 4096):
                said += piece
                if b"[y/N]" in said and not answered:
                    answered = os.write(ours, f"{answer}\n".encode()) > 0
        except OSError:
            pass  # the other end is closed
        os.close(ours)
        return process.wait(60), " ".join(said.decode().split())

    def __call__(self, *words: object, stdin: str = "") -> str:
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *words: object) -> Any:
        """Run a command with --json and return what it printed."""
        return json.loads(self(*words, "--json"))

    def fails(self, *words: object, status: int = 1, stdin: str = "") -> str:
        """Run a command that must fail with one line on stderr; return that line."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == status, done.stdout + done.stderr
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("pilotwave: ")
        return lines[0]

    def fails_with_warning(self, *words: object) -> str:
        """Run a command that warns and then fails with status 1; return its last line."""
        done = self.run(*words)
        assert done.returncode == 1, done.stdout + done.stderr
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith("pilotwave: ")
        return line

    def but(self, **changes: Any) -> Operator:
        """Return somebody else, or the same person with another token, folder or environment."""
        return Operator(**{**vars(self), **changes})

"""Run Pilotwave's own programs as processes, without importing them anew for each.

A process that has the imports behind it forks; the child gets the words, the environment, the
folder and the three streams that it would get from a shell, and calls the program's entry point.
Starting Python itself costs a second or two of CPU each time; tests run these programs hundreds
of times.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forking import Forker, forker

CLI = "pilotwave_cli.main:app"
SERVER = "pilotwave_server.cli:main"
AGENT = "pilotwave_agent.cli:main"
_asking = threading.Lock()


@dataclass(frozen=True)
class Program:
    """A process that was started. What it prints goes to two files."""

    pid: int
    ended: int

    def end(self, *, seconds: float) -> int:
        """Wait for the end, kill it when the time is over; return the exit status."""
        select.select([self.ended], [], [], seconds)
        os.close(self.ended)
        with _asking:
            return _forker().wait(self.pid, seconds=0.0)

    def is_running(self) -> bool:
        return not select.select([self.ended], [], [], 0)[0]


def start(
    entry: str,
    words: Sequence[object],
    *,
    environment: dict[str, str],
    folder: Path,
    stdin: Path = Path(os.devnull),
    stdout: Path,
    stderr: Path,
) -> Program:
    """Start the program whose entry point is `module:function`; what it prints is appended."""
    streams = [str(path) for path in (stdin, stdout, stderr)]
    with _asking:
        pid = _forker().fork(
            _be, entry, [str(word) for word in words], environment, str(folder), streams
        )
        return Program(pid, os.pidfd_open(pid))


def run(
    entry: str,
    words: Sequence[object],
    *,
    environment: dict[str, str],
    folder: Path,
    stdin: str = "",
    seconds: float = 110.0,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its status and what it printed."""
    with tempfile.TemporaryDirectory() as held:
        given, out, err = (Path(held, name) for name in ("in", "out", "err"))
        given.write_text(stdin)
        program = start(
            entry,
            words,
            environment=environment,
            folder=folder,
            stdin=given,
            stdout=out,
            stderr=err,
        )
        status = program.end(seconds=seconds)
        return subprocess.CompletedProcess(
            [entry, *map(str, words)], status, out.read_text(), err.read_text()
        )


@functools.cache
def _forker() -> Forker:
    stack = ExitStack()
    atexit.register(stack.close)
    modules = [entry.partition(":")[0] for entry in (CLI, SERVER, AGENT)]
    return stack.enter_context(forker(*modules, "pilotwave_server.serve"))


def _be(
    entry: str, words: list[str], environment: dict[str, str], folder: str, streams: list[str]
) -> None:
    modes = (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_APPEND] * 2)
    for number, (path, mode) in enumerate(zip(streams, modes, strict=True)):
        opened = os.open(path, mode, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    module, _, function = entry.partition(":")
    sys.argv = [module, *words]
    sys.stdin, sys.stdout, sys.stderr = (open(n, mode) for n, mode in enumerate("rww"))  # noqa: SIM115 - they are the process's own
    status: Any = 0
    try:
        getattr(importlib.import_module(module), function)()
    except SystemExit as e:
        status = e.code
    finally:
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
    os._exit(status or 0)

"""Fork processes cheaply, to be killed: from one that has the imports behind it and no threads.

(multiprocessing's fork server imports pytest anew in each child.)
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]
_LONGEST_S = 60.0


class Forker:
    """A process that forks others. Their functions and arguments have to be picklable."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def fork(self, function: Callable[..., None], *arguments: object) -> int:
        """Run a function in a new process and return its id."""
        return int(self._ask("fork", function, arguments))

    def wait(self, pid: int, *, seconds: float = _LONGEST_S) -> int:
        """Wait for a process's end, kill it when the time is over; return its exit code."""
        return int(self._ask("wait", pid, seconds))

    def kill(self, pid: int) -> None:
        """Kill a process, and wait until it is gone."""
        self.wait(pid, seconds=0.0)

    def _ask(self, *question: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        pickle.dump(question, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)  # noqa: S301 - from our own child


@contextmanager
def forker(*preload: str) -> Iterator[Forker]:
    """Start a forking process that has imported the modules named."""
    imports = "".join(f"import {name}; " for name in preload)
    command = [sys.executable, "-c", f"{imports}from tests.forking import serve; serve()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPO, stdin=pipe, stdout=pipe) as process:
        yield Forker(process)
        assert process.stdin
        process.stdin.close()


def serve() -> None:
    """Answer questions on stdin until there is none; what still runs then is killed."""
    running: set[int] = set()
    while True:
        try:
            what, *words = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own test
        except EOFError:
            break
        if what == "fork":
            answer = _fork(*words)
            running.add(answer)
        else:
            answer = _wait(*words)
            running.discard(words[0])
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    for pid in running:
        _wait(pid, 0.0)


def _fork(function: Callable[..., None], arguments: tuple[object, ...]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.dup2(2, 1)  # the answers' pipe is the parent's alone
        function(*arguments)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def _wait(pid: int, seconds: float) -> int:
    ended = os.pidfd_open(pid)
    if not select.select([ended], [], [], seconds)[0]:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    os.close(ended)
    return os.waitstatus_to_exitcode(status)

"""Kill a working agent with SIGKILL, at a chosen step on disk or at a chosen moment.

The agent's worker runs in a process of its own, forked from one that has imported it already and
does nothing else: pickled wishes on its stdin, what came of them on its stdout.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.config import Config
from pilotwave_agent.disk import Disk
from pilotwave_agent.journal import read_state
from pilotwave_agent.slots import Layout
from pilotwave_agent.work import Job, work
from pilotwave_protocol.states import ModelState

REPO = Path(__file__).parents[2]
CHANGES = (
    *("open_new", "open_append", "write", "sync_fd", "sync_dir", "rename", "symlink", "link"),
    *("unlink", "mkdir", "rmdir", "truncate", "chmod", "reserve"),
)


class CountingDisk(Disk):
    """A disk whose process dies just before its `dies_at`-th change; `torn` halves a write.

    `writes` are the numbers of those changes that write bytes.
    """

    def __init__(self, dies_at: int | None = None, *, torn: bool = False) -> None:
        self.count = 0
        self.writes: list[int] = []
        self.dies_at, self.torn = dies_at, torn

    def step(self, fd: int | None = None, data: bytes | memoryview = b"") -> None:
        self.count += 1
        if fd is not None:
            self.writes.append(self.count)
        if self.count == self.dies_at:
            if fd is not None and self.torn:
                os.write(fd, bytes(data)[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)


def _counted(name: str) -> None:
    plain = getattr(Disk, name)

    def method(self: CountingDisk, *args: Any, **kw: Any) -> Any:
        self.step(*args[:2]) if name == "write" else self.step()
        return plain(self, *args, **kw)

    setattr(CountingDisk, name, method)


for _name in CHANGES:
    _counted(_name)


@dataclass(frozen=True)
class Run:
    """One run of the worker, as after a start: when it dies, if it does, and what came of it."""

    config: Config
    dies_at: int | None = None
    torn: bool = False
    seconds: float | None = None
    killed: bool = False
    changes: int = 0
    writes: tuple[int, ...] = ()


class Killer:
    """The process that workers are forked from."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def work(self, config: Config, **how: Any) -> Run:
        """Let a worker work until it is done or killed (`dies_at`, `torn`, `seconds`)."""
        assert self.process.stdin
        assert self.process.stdout
        pickle.dump(Run(config, **how), self.process.stdin)
        self.process.stdin.flush()
        done = pickle.load(self.process.stdout)  # noqa: S301 - our own child
        assert isinstance(done, Run), done
        return done


@contextmanager
def killer() -> Iterator[Killer]:
    """Start the process that workers are forked from."""
    command = [sys.executable, "-c", "from tests.agent.killing import serve; serve()"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=REPO, stdin=pipe, stdout=pipe) as process:
        yield Killer(process)
        assert process.stdin
        process.stdin.close()


def serve() -> None:
    """Fork a worker for each wish on stdin, until there is none."""
    while True:
        try:
            run: Run = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own test
        except EOFError:
            return
        pickle.dump(_forked(run), sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _forked(run: Run) -> object:
    """Work in a child; return the run with its outcome, or how the child ended if that is wrong."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(run, writer)
    os.close(writer)
    ended = os.pidfd_open(pid)
    ready, _, _ = select.select([ended], [], [], 60 if run.seconds is None else run.seconds)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with open(reader, "rb") as told:
        said = told.read()
    os.close(ended)
    if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
        return Run(run.config, killed=True)
    return pickle.loads(said) if status == 0 else f"ended with {status}"  # noqa: S301


def _work(run: Run, writer: int) -> None:
    status = 1
    try:
        disk = CountingDisk(run.dies_at, torn=run.torn)
        work(run.config, Job(token="token", boot=True, refresh=True), disk=disk)
        done = Run(run.config, changes=disk.count, writes=tuple(disk.writes))
        os.write(writer, pickle.dumps(done))
        status = 0
    finally:
        os._exit(status)


def check_one_whole_version(config: Config, versions: Mapping[str, Mapping[str, bytes]]) -> str:
    """See that `current` names one whole, unchanged version that the journal knows; return it."""
    layout = Layout(config.data_dir)
    current = layout.models / "detector" / "current"
    assert current.is_symlink()
    version = current.readlink().name.partition("-")[0]
    found = {p.name: p.read_bytes() for p in current.resolve().iterdir()}
    assert found == versions[version], (version, sorted(found))
    slot = read_state(layout.journal).slot("detector")
    assert slot.current is not None
    ways = {v.version for v in (slot.current, slot.previous, slot.candidate) if v}
    assert version in ways, (version, slot)
    return version


def is_settled(config: Config, version: str) -> bool:
    """Say whether the device runs `version`, has nothing left to do and left nothing lying."""
    layout = Layout(config.data_dir)
    slot = read_state(layout.journal).slot("detector")
    here = slot.current is not None and slot.current.version == version
    return here and slot.state is ModelState.HEALTHY


def left_lying(config: Config) -> list[str]:
    """Return the names of unfinished things in the data folder: half files, folders set aside."""
    names = (str(p.relative_to(config.data_dir)) for p in config.data_dir.rglob("*"))
    return [name for name in names if name.endswith((".part", ".new")) or ".staging-" in name]

"""Kill a working agent with SIGKILL, at a chosen step on disk or at a chosen moment."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pilotwave_agent.core.journal import read_state
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.settings.config import Config
from pilotwave_agent.work import Job, work
from pilotwave_protocol.states import ModelState
from tests.forking import Forker

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
    """What came of one run of the worker: was it killed; else what it changed on disk."""

    killed: bool = False
    changes: int = 0
    writes: tuple[int, ...] = ()


def work_until(
    forker: Forker,
    config: Config,
    *,
    dies_at: int | None = None,
    torn: bool = False,
    seconds: float = 60.0,
) -> Run:
    """Let a worker work, as after a start, until it is done or killed."""
    told = config.data_dir.parent / "told"
    pid = forker.fork(_work, config, dies_at, torn, told)
    status = forker.wait(pid, seconds=seconds)
    assert status in (0, -signal.SIGKILL), status
    return Run(killed=True) if status else Run(**json.loads(told.read_text()))


def _work(config: Config, dies_at: int | None, torn: bool, told: Path) -> None:
    disk = CountingDisk(dies_at, torn=torn)
    work(config, Job(token="token", boot=True, refresh=True), disk=disk)
    told.write_text(json.dumps({"changes": disk.count, "writes": disk.writes}))


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
    """Say whether the device runs `version`, has nothing left to do."""
    layout = Layout(config.data_dir)
    slot = read_state(layout.journal).slot("detector")
    here = slot.current is not None and slot.current.version == version
    return here and slot.state is ModelState.HEALTHY


def left_lying(config: Config) -> list[str]:
    """Return the names of unfinished things in the data folder: half files, folders set aside."""
    names = (str(p.relative_to(config.data_dir)) for p in config.data_dir.rglob("*"))
    return [name for name in names if name.endswith((".part", ".new")) or ".staging-" in name]

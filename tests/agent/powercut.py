"""Cut the power at every moment of a device's work, and see each state that is left recover.

A `Run` records what one piece of the agent's work does to the medium. `states` are the distinct
trees that a power cut at any of its moments may leave, each with what had been promised by then:
whatever was durable when a call returned must be there afterwards.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pilotwave_agent.core.journal import read_state
from pilotwave_agent.core.state import DeviceState
from tests.agent.medium import Left, Medium, Tree
from tests.agent.recorder import Recorder, without_locks
from tests.peers.device import Device

EXHAUSTIVE = 20_000
"""Moments with at most so many states are enumerated whole; the others within two deviations."""
KEPT = ("trust/tuf.json", "identity/seq.json")


@dataclass(frozen=True)
class Promise:
    """From which of its contents on each guarded file is promised at a moment."""

    journal: int
    kept: dict[str, int]


class Killed(BaseException):
    """The process is gone; what it wrote is still in the page cache."""


class Run(Recorder):
    """The recorded work of one device.

    It dies at its `dies_at`-th change, if that is given; `after` such a run, it goes on with the
    page cache as that one left it.
    """

    def __init__(self, root: Path, *, dies_at: int = 0, after: Run | None = None) -> None:
        without_locks(root)
        super().__init__(root, after.medium if after else Medium.holding(root), self._look)
        self.dies_at = dies_at
        # what may be found afterwards, in order of time, and from where on it is promised
        self.journal = [*(after.journal if after else []), read_state(root / "journal" / "log")]
        self.kept = {
            name: [*(after.kept[name] if after else []), _content(root / name)] for name in KEPT
        }
        self.sure = after.sure if after else Promise(0, dict.fromkeys(KEPT, 0))
        self.states: dict[Tree, Promise] = {}
        self._read: dict[bytes | None, DeviceState] = {}
        self.moments = self.exhaustive = self.most = 0

    def append(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        super().append(path, data, mode)
        self._promised(path)

    def write_atomic(self, path: Path, data: bytes, mode: int = 0o600) -> None:
        super().write_atomic(path, data, mode)
        self._promised(path)

    def _promised(self, path: Path) -> None:
        name = str(path.relative_to(self.root))
        if name == "journal/log":
            self.journal.append(read_state(path))
            self.sure = replace(self.sure, journal=len(self.journal) - 1)
        elif name in self.kept:
            self.kept[name].append(_content(path))
            newest = {**self.sure.kept, name: len(self.kept[name]) - 1}
            self.sure = replace(self.sure, kept=newest)

    def _look(self, medium: Medium) -> None:
        self.moments += 1
        if self.dies_at:
            if self.moments == self.dies_at:
                raise Killed
            return
        bound = medium.bound()
        self.most = max(self.most, bound)
        whole = bound <= EXHAUSTIVE
        self.exhaustive += whole
        for tree in medium.after_cut() if whole else _bounded(medium):
            # later moments promise no less, so the last one a tree is met at counts
            self.states[tree] = self.sure

    def finish(self) -> None:
        """Look at the end of the work as well."""
        self.settle()

    def broken_promises(self) -> list[str]:
        """Say what any state has lost of what was promised when the power went."""
        return sorted({words for tree in self.states for words in self._broken(tree)})

    def _broken(self, tree: Tree) -> Iterator[str]:
        promise, left = self.states[tree], dict(tree)
        found = self._journal_in(_bytes_in(left, "journal/log"))
        if found not in self.journal[promise.journal :]:
            yield f"the journal fell behind record {promise.journal} of {len(self.journal) - 1}"
        for name, contents in self.kept.items():
            if _bytes_in(left, name) not in contents[promise.kept[name] :]:
                yield f"{name} fell behind write {promise.kept[name]} of {len(contents) - 1}"

    def _journal_in(self, raw: bytes | None) -> DeviceState:
        if raw not in self._read:
            path = self.root / "journal" / "left-by-a-cut"
            if raw is not None:
                path.write_bytes(raw)
            self._read[raw] = read_state(path)
            path.unlink(missing_ok=True)
        return self._read[raw]


def _bounded(medium: Medium) -> Iterator[Tree]:
    yield from medium.after_cut(2)
    yield from medium.after_cut(2, newest=False)


def _bytes_in(left: dict[str, Left], name: str) -> bytes | None:
    found = left.get(name)
    return found[0] if isinstance(found, tuple) else None


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def lay_out(tree: Tree, root: Path) -> None:
    """Make real what a power cut left."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name, left in tree:
        path = root / name
        if left is None:
            path.mkdir()
        elif isinstance(left, str):
            os.symlink(left, path)
        else:
            content, mode = left
            path.write_bytes(content)
            path.chmod(mode)


def moved_to(device: Device, root: Path) -> Device:
    """Return the device as if its data folder lay at `root`."""
    return Device(device.registry, device.config_path, replace(device.config, data_dir=root))


def some(states: dict[Tree, Promise], share: int) -> list[Tree]:
    """Return every `share`-th state, spread by a fixed chance."""
    trees = list(states)
    return random.Random(7).sample(trees, max(len(trees) // share, 1))

"""Kill the real agent at random moments, with episodes of a full and of a read-only disk.

A real server, and devices side by side, each a real resident agent with its real children and a
file system of its own. Again and again another version is ordered, and the agents and all that they
started are killed by SIGKILL after a random time. Each time the data folder must hold one whole
version that `current` names, a journal that lost nothing it had said before, and floors, yanks and
TUF versions that never fell. At the end the devices must run what is ordered. Root is needed to
mount the file systems.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from _bench import MODEL, ROOT, Bench, enrol, main, publish, server

from demo.stage import Stage
from pilotwave_agent.core.journal import read_state
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.trust.memory import TufMemory, load
from pilotwave_agent.version_folder import intact
from tests.peers.small_disk import SmallDisk, own_mounts

KILLS, QUICK_KILLS = 2000, 40
VICTIMS, DISK_MB = 4, 6
_TRIES = 6
_SETTINGS = """keep_free_mb = 0
probation_s = 0.2
[probe]
kind = "exec"
command = ["true"]
"""
_AGENT = [sys.executable, "-m", "pilotwave_agent.cli", "run", "--data"]


class Victim:
    """The agent as a process group, its small disk, and what must never fall."""

    def __init__(self, stage: Stage, number: int) -> None:
        self.name = f"kill-{number}"
        self.folder = stage.root / self.name
        self.disk, self.chance = SmallDisk(self.folder, DISK_MB), random.Random(11 + number)
        self.layout = Layout(self.folder)
        self.state, self.tuf = DeviceState(), TufMemory()
        self.faults, self.kinds = Counter[str](), Counter[str]()
        self.switches = 0
        enrol(stage, self.name, extra=_SETTINGS)

    def run_for(self, seconds: float) -> None:
        """Start it, let it be for a while, kill it and its children."""
        agent = subprocess.Popen(
            [*_AGENT, str(self.folder)],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        try:
            agent.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(agent.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        agent.wait()
        time.sleep(0.01)  # the children are the kernel's to reap

    def episode(self) -> None:
        """Run and kill it once, on a good disk or a bad one, and look."""
        bounds = (0.05, 1.5) if self.chance.random() < 0.6 else (1.5, 6.0)
        seconds = self.chance.uniform(*bounds)
        kind = self.chance.choices(("good", "full", "readonly"), (90, 5, 5))[0]
        if kind == "full":
            self.disk.fill(leave=self.chance.choice((0, 1, 4, 16, 64, 256)) << 10)
            self.run_for(seconds)
            self.check()
            self.disk.empty()
        elif kind == "readonly":
            self._read_only(seconds)
        else:
            self.run_for(seconds)
        self.kinds[kind] += 1
        before = self.state.slot(MODEL).current
        self.check()
        self.switches += self.state.slot(MODEL).current != before

    def _read_only(self, seconds: float) -> None:
        self.disk.read_only()
        try:
            self.run_for(seconds)
            self.check()
        finally:
            self.disk.read_only(False)

    def settle(self, version: str) -> None:
        """Let it come to what is ordered."""
        for _ in range(_TRIES):
            self.run_for(10)
            self.check()
            if self.runs(version):
                return

    def runs(self, version: str) -> bool:
        """Say whether it runs what is ordered."""
        current = self.state.slot(MODEL).current
        return current is not None and current.version == version

    def check(self) -> None:
        """Hold what is on disk against what was there before."""
        state, tuf = (
            read_state(self.layout.journal),
            load(self.layout.tuf.parent / "trust/tuf.json"),
        )
        before, self.state = self.state, state
        known, self.tuf = self.tuf, tuf
        self._fault("directive seq fell", state.memory.directive_seq < before.memory.directive_seq)
        self._fault("a yank was forgotten", not before.memory.yanked <= state.memory.yanked)
        floors = before.memory.floors.items()
        fell = any(state.memory.floors.get(m, 0) < n for m, n in floors)
        self._fault("a floor fell", fell)
        self._fault("events were lost", state.next_event < before.next_event)
        self._fault("TUF root fell", tuf.root < known.root)
        self._fault("TUF timestamp fell", tuf.timestamp < known.timestamp)
        self._fault("TUF snapshot fell", tuf.snapshot < known.snapshot)
        self._fault("a version was half there", not self._serves())

    def _serves(self) -> bool:
        """Say whether what `current` names is one whole version that the journal knows."""
        link = self.layout.models / MODEL / "current"
        if not link.is_symlink():
            return self.state.slot(MODEL).current is None
        slot = self.state.slot(MODEL)
        known = [v for v in (slot.current, slot.previous, slot.candidate) if v]
        named = [v for v in known if self.layout.version(MODEL, v).name == link.readlink().name]
        return bool(named) and intact(Disk(), self.layout, MODEL, named[0], deep=True)

    def _fault(self, words: str, there: bool) -> None:
        if there:
            self.faults[words] += 1
            print(f"  {self.name}: {words}", flush=True)


def measure(bench: Bench) -> None:
    if not own_mounts():
        sys.exit("this bench mounts small disks: run it as root")
    rounds = (QUICK_KILLS if bench.quick else KILLS) // (VICTIMS * 4)
    with server(poll_interval_s=1, check_in_interval_s=5) as stage, ThreadPoolExecutor() as pool:
        versions = ["1.0.0", "1.1.0"]
        for version in versions:
            publish(stage, version)
        stage.pilotwave("groups", "create", "all", "--selector", "site=bench")
        victims = [Victim(stage, number) for number in range(VICTIMS)]
        bench.say(f"{VICTIMS} devices, each killed 0.05 to 6 s after a start; seeds from 11")
        for number in range(rounds):
            wanted = versions[number % 2]
            stage.pilotwave("assign", "--yes", MODEL, wanted, "--group", "all")
            list(pool.map(lambda v: [v.episode() for _ in range(4)], victims))
        list(pool.map(lambda v: v.settle(wanted), victims))
        figures(bench, victims, wanted)
        for victim in victims:
            victim.disk.unmount()


def figures(bench: Bench, victims: list[Victim], wanted: str) -> None:
    """Say what all of them went through."""
    kinds = sum((v.kinds for v in victims), Counter[str]())
    faults = sum((v.faults for v in victims), Counter[str]())
    bench.figure("kills", sum(kinds.values()))
    bench.figure("kills_with_a_full_disk", kinds["full"])
    bench.figure("kills_with_a_read_only_disk", kinds["readonly"])
    bench.figure("switches_between_kills", sum(v.switches for v in victims))
    broken = sum(faults.values())
    bench.figure("states_that_broke_a_rule", broken, "none", broken == 0)
    for words, count in faults.items():
        bench.figure(f"  {words}", count)
    right = sum(v.runs(wanted) for v in victims)
    bench.figure("end_on_the_ordered_version", right, "all", right == len(victims))


if __name__ == "__main__":
    main("kills", measure)

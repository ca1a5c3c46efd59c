"""Kill the real agent at random moments, with episodes of a full and of a read-only disk.

A real server, a real resident agent with its real children. Again and again another version is
ordered, and the agent and all that it started are killed by SIGKILL after a random time. Each time
the data folder must hold one whole version that `current` names, a journal that lost nothing it had
said before, and floors, yanks and TUF versions that never fell. At the end the device must run what
is ordered.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

from _bench import MODEL, ROOT, Bench, enrol, main, publish, server

from demo.stage import Stage
from pilotwave_agent.disk import Disk
from pilotwave_agent.install import intact
from pilotwave_agent.journal import read_state
from pilotwave_agent.slots import Layout
from pilotwave_agent.state import DeviceState
from pilotwave_agent.tufstate import TufMemory, load

DEVICE = "kill-1"
KILLS, QUICK_KILLS = 2000, 40
_AGENT = [sys.executable, "-m", "pilotwave_agent.cli", "run", "--data"]


class Victim:
    """The agent as a process group, and what must never fall."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.folder = stage, stage.root / DEVICE
        self.layout = Layout(self.folder)
        self.state, self.tuf = DeviceState(), TufMemory()
        self.faults: Counter[str] = Counter()

    def run_for(self, seconds: float, *, file_limit: int | None = None) -> None:
        """Start it, let it be for a while, kill it and its children."""
        command = [*_AGENT, str(self.folder)]
        if file_limit is not None:  # no file may grow beyond so many blocks of 512 bytes
            command = ["sh", "-c", f'ulimit -f {file_limit}; exec "$@"', "sh", *command]
        agent = subprocess.Popen(
            command,
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


def episode(victim: Victim, chance: random.Random, seconds: float) -> str:
    """Run and kill it once, on a good disk or a bad one; return which."""
    kind = chance.choices(("good", "full", "readonly"), (90, 5, 5))[0]
    if kind == "full":
        victim.run_for(seconds, file_limit=chance.randrange(0, 40))
    elif kind == "readonly":
        with_read_only(victim, seconds)
    else:
        victim.run_for(seconds)
    return kind


def with_read_only(victim: Victim, seconds: float) -> None:
    """Run it where its data folder is mounted read-only; root is needed for that."""
    cage = 'mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"'
    command = ["unshare", "--mount", "sh", "-c", f'{cage} && exec "$2" -m "$3" run --data "$1"']
    agent = subprocess.Popen(
        [*command, "cage", str(victim.folder), sys.executable, "pilotwave_agent.cli"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        agent.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(agent.pid, signal.SIGKILL)
    agent.wait()


def measure(bench: Bench) -> None:
    kills, chance = QUICK_KILLS if bench.quick else KILLS, random.Random(11)
    with server(poll_interval_s=1, check_in_interval_s=5) as stage:
        versions = ["1.0.0", "1.1.0"]
        for version in versions:
            publish(stage, version)
        stage.pilotwave("groups", "create", "all", "--selector", "site=bench")
        enrol(stage, DEVICE, extra="probation_s = 0.2\n[probe]\nkind = 'exec'\ncommand = ['true']")
        victim, kinds, switches, seen = Victim(stage), Counter[str](), 0, None
        bench.say(f"{kills} kills, each 0.05 to 6 s after a start; seed 11")
        for number in range(kills):
            if number % 4 == 0:
                wanted = versions[number // 4 % 2]
                stage.pilotwave("assign", MODEL, wanted, "--group", "all")
            bounds = (0.05, 1.5) if chance.random() < 0.6 else (1.5, 6.0)
            kinds[episode(victim, chance, chance.uniform(*bounds))] += 1
            victim.check()
            current = victim.state.slot(MODEL).current
            switches += current != seen
            seen = current
        victim.run_for(30)
        victim.check()
        ended = victim.state.slot(MODEL).current
        right = ended is not None and ended.version == wanted
        bench.figure("kills", sum(kinds.values()))
        bench.figure("kills_with_a_full_disk", kinds["full"])
        bench.figure("kills_with_a_read_only_disk", kinds["readonly"])
        bench.figure("switches_between_kills", switches)
        faults = sum(victim.faults.values())
        bench.figure("states_that_broke_a_rule", faults, "none", faults == 0)
        for words, count in victim.faults.items():
            bench.figure(f"  {words}", count)
        bench.figure("ends_on_the_ordered_version", "yes" if right else "no", "yes", right)


if __name__ == "__main__":
    main("kills", measure)

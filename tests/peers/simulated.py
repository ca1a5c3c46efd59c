"""A resident agent whose days pass in seconds: real code, real HTTP, an injected clock."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pilotwave_agent import identity
from pilotwave_agent.host.clock import Clock
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.host.lock import Held
from pilotwave_agent.resident.agent import Agent
from pilotwave_agent.settings.config import Config
from pilotwave_agent.work import Job, work


class SimulatedClock(Clock):
    """Time that passes only by waiting. Counts how often a wait came to its end."""

    def __init__(self, wall: float) -> None:
        self._wall, self._passed, self.wakeups = wall, 0.0, 0
        self.ends = float("inf")

    @property
    def passed(self) -> float:
        """Return the seconds since it was made."""
        return self._passed

    def uptime(self) -> float:
        return 1000.0 + self._passed

    def wall(self) -> float:
        return self._wall + self._passed

    def boot(self) -> str:
        return "simulated"

    def sleep(self, seconds: float) -> None:
        self._passed += seconds

    def wait(self, readers: Sequence[Any], seconds: float) -> list[Any]:
        ready = select.select(readers, [], [], 0)[0]
        if not ready and seconds > 0:
            left = self.ends - self._passed
            self._passed += min(seconds, left)
            self.wakeups += seconds <= left
        return ready


class Here:
    """Works in this process where the real agent starts another."""

    def __init__(self, config: Config, job: Mapping[str, Any], clock: Clock, root: Path) -> None:
        self._reader, writer = os.pipe()
        lines: list[dict[str, Any]] = []
        try:
            done = work(config, Job(**job), tell=lines.append, clock=clock, root=root)
            lines += [{"done": vars(done)}, {"ended": 0}]
        except Held as e:
            lines += [{"failed": str(e)}, {"ended": 1}]
        self._lines = json.loads(json.dumps(lines))
        os.write(writer, b"x")
        os.close(writer)

    def fileno(self) -> int:
        return self._reader

    def hear(self) -> Iterator[dict[str, Any]]:
        while self._lines:
            yield self._lines.pop(0)

    def end(self) -> None:
        os.close(self._reader)


class SimulatedAgent:
    """One device's resident agent under a simulated clock."""

    def __init__(
        self,
        config: Config,
        config_path: Path,
        clock: SimulatedClock,
        root: Path = Path("/"),
    ) -> None:
        self.clock, self.worked = clock, 0
        self._wakeup, self._writer = os.pipe()
        who = identity.load(Layout(config.data_dir))

        def launch(path: Path, job: Mapping[str, Any]) -> Here:
            self.worked += 1
            return Here(config, job, clock, root)

        self.agent = Agent(
            config,
            config_path,
            who,
            clock=clock,
            launch=launch,
            root=root,
        )
        self.agent.start()

    def live(self, seconds: float) -> None:
        """Let so much time pass."""
        self.clock.ends = self.clock.passed + seconds
        while self.clock.passed < self.clock.ends:
            self.agent.turn()
            self.agent.sleep(self._wakeup)

    def close(self) -> None:
        """End it."""
        self.agent.close()
        os.close(self._wakeup)
        os.close(self._writer)

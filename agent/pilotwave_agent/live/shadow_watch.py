"""Tell a child that hangs from one that gets no processor: it runs when nothing else wants one."""

from __future__ import annotations

import math
import time

from pilotwave_agent.live.shadow_process import ShadowProcess

_MOST_STARVED = 30  # timeouts that a child may wait for a processor


class Fails(Exception):
    """The child does not get on. `stage`: the version that this is of, where the child is beyond
    it."""

    def __init__(self, sentence: str, *, blames: bool = True, stage: str = "") -> None:
        super().__init__(sentence)
        self.blames, self.stage = blames, stage


class Watch:
    """Tells a child that hangs from one that gets no processor."""

    def __init__(self, process: ShadowProcess) -> None:
        self._process = process
        self._begun: float | None = None
        self._ends, self._timeout_s, self._cpu_s, self._starved = math.inf, 0.0, 0.0, 0

    def begin(self, at: float, timeout_s: float) -> None:
        """Watch what began at `at`, if it is not watched yet."""
        if self._begun != at:
            self._begun, self._timeout_s, self._ends = at, timeout_s, at + timeout_s
            self._cpu_s, self._starved = self._process.cpu_s(), 0

    def over(self) -> None:
        """It has come to its end."""
        self._begun, self._ends = None, math.inf

    def left_s(self) -> float:
        """Return in how many seconds to `check`."""
        return max(self._ends - time.monotonic(), 0.01)

    def check(self) -> None:
        """Raises `Fails`, also for one that gets no processor for very long."""
        if time.monotonic() < self._ends:
            return
        ran_s = self._process.cpu_s() - self._cpu_s
        waits = ran_s < self._timeout_s / 2 and self._process.waits_for_processor()
        self._starved += 1
        if not waits:
            raise Fails(f"did not answer within {self._timeout_s:g} s")
        if self._starved > _MOST_STARVED:
            raise Fails("gets no processor", blames=False)
        self._ends = time.monotonic() + self._timeout_s

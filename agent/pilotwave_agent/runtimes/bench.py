"""Time the calls of loaded models: in turns, so that what slows the machine down for a while slows
them all. The 5th percentile of 36 calls finds the faster one; means and high percentiles do not."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pilotwave_agent.runtimes.base import Array, Runner

CALLS = 36
_LEAST = 3


@dataclass
class Times:
    """Seconds of each call by the wall, and of this process's CPU."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def p05_ms(self) -> float:
        """The 5th percentile of the calls."""
        return percentile_ms(self.wall, 5)

    @property
    def cpu_ms(self) -> float:
        """The median of the CPU time of a call; 0 where the system counts it in coarse steps."""
        return percentile_ms(self.cpu, 50)


def percentile_ms(seconds: Sequence[float], which: float) -> float:
    """Return a percentile in milliseconds; 0 of nothing."""
    return float(np.percentile(np.array(seconds) * 1000, which)) if len(seconds) else 0.0


def in_turns(
    models: Sequence[tuple[Runner, Mapping[str, Array]]],
    *,
    within_s: float,
    calls: int = CALLS,
    warm: int = 1,
) -> list[Times]:
    """Call each model with its input, A B A B, and return the times of each, in order.

    It ends after so many `calls` of each, or once it took `within_s` and a few calls are there;
    `warm` calls of each come before and are not counted.
    """
    times = [Times() for _ in models]
    end = time.perf_counter() + within_s
    for turn in range(calls + warm):
        for (model, feeds), taken in zip(models, times, strict=True):
            begun, cpu = time.perf_counter(), time.process_time()
            model.run(feeds)
            if turn >= warm:
                taken.wall.append(time.perf_counter() - begun)
                taken.cpu.append(time.process_time() - cpu)
        if turn >= _LEAST and time.perf_counter() > end:
            break
    return times


@dataclass
class Stretches:
    """When, by `time.monotonic`, nothing ran, and when each model did nothing but answer, with how
    many calls: for who counts energy meanwhile."""

    idle: list[tuple[float, float]] = field(default_factory=list)
    busy: list[list[tuple[float, float, int]]] = field(default_factory=list)


def in_stretches(
    models: Sequence[tuple[Runner, Mapping[str, Array]]], *, stretch_s: float, rounds: int
) -> Stretches:
    """Rest, then call each model over and over, for `stretch_s` each; so many rounds of it."""
    found = Stretches(busy=[[] for _ in models])
    for _ in range(rounds):
        begun = time.monotonic()
        time.sleep(stretch_s)
        found.idle.append((begun, time.monotonic()))
        for (model, feeds), busy in zip(models, found.busy, strict=True):
            calls, begun = 0, time.monotonic()
            while time.monotonic() < begun + stretch_s:
                model.run(feeds)
                calls += 1
            busy.append((begun, time.monotonic(), calls))
    return found

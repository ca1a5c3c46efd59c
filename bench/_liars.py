"""Simulated rollouts in which some devices lie to a metric gate, as badly as we can think of.

300 devices, a version that goes to 12, 40, then 100 of them; devices differ, drift and scatter as
in `gates.py`. The same share of each arm lies, always speaks first, and wants one thing: that a
healthy version is stopped, or that a slower one passes. Windows go through the server's own budget
before the gate sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np

from pilotwave_server.device_api.window_budget import Panel, own_time
from pilotwave_server.rollouts.gates.data import Evidence, Sample
from pilotwave_server.rollouts.gates.verdict import Word

DEVICES, WAVES, EACH = 300, (12, 40, 100), 6
STEP_S = 900.0
SERIES = "latency_ms p95"
START = 1_700_000_000.0
Judge = Callable[[Evidence], Word]


class Lie(NamedTuple):
    """`factor` gives what the n-th window (from 0) is multiplied by to look worse (its inverse to
    look better); `windows` are sent at a time, each `late` steps older than the one after it."""

    name: str
    factor: Callable[[int], float]
    windows: int = 1
    late: int = 0


LIES = (
    Lie("far off", lambda n: 10.0),
    Lie("just so far", lambda n: 1.15),
    Lie("drifting", lambda n: 1.1 ** (n + 1)),
    Lie("alternating", lambda n: 10.0 if n % 2 else 0.1),
    Lie("48 windows at once", lambda n: 10.0, windows=48),
    Lie("401 windows at once", lambda n: 10.0, windows=401),
    Lie("a backlog of 48", lambda n: 10.0, windows=48, late=1),
)


class Came(NamedTuple):
    """How a rollout came out, and on how many devices the version was by then."""

    word: str
    devices: int


class Fleet:
    """Devices in the order in which the waves take them; a share of each stretch of them lies."""

    def __init__(self, rng: np.random.Generator, *, shift: float, share: float) -> None:
        self._rng, self._shift = rng, shift
        self._speed = 10 * np.exp(0.7 * rng.standard_normal(DEVICES))
        self._drift = 0.03 * rng.standard_t(3, DEVICES)
        self._phase = rng.random() * 2 * math.pi
        self.liars = [n for n in range(DEVICES) if int((n + 1) * share) > int(n * share)]
        self._sent: dict[tuple[int, bool], int] = {}

    def honest(self, device: int, new: bool, step: int) -> Sample:
        swing = 0.1 * math.sin(self._phase + step / 15)
        worse = math.log1p(self._shift) if new else 0.0
        change = self._drift[device] + swing + worse + 0.04 * self._rng.standard_normal()
        speed = float(self._speed[device])
        return Sample(device, new, speed * math.exp(change), speed, {}, _time(step), STEP_S)

    def others(self) -> list[int]:
        """The honest devices, in another order each time."""
        honest = sorted(set(range(DEVICES)) - set(self.liars))
        return [int(n) for n in self._rng.permutation(honest)]

    def lying(self, device: int, new: bool, step: int, lie: Lie, toward: int) -> Iterator[Sample]:
        """Yield what it sends in a step, old windows first; `toward` 1 is to have it stopped."""
        true = self.honest(device, new, step)._replace(value=float(self._speed[device]))
        for n in range(lie.windows):
            count = self._sent.get((device, new), 0)
            self._sent[device, new] = count + 1
            times = lie.factor(count) ** (toward if new else -toward)
            at = true.at - lie.late * STEP_S * (lie.windows - 1 - n)
            yield true._replace(value=true.value * times, at=at)


def run(fleet: Fleet, judge: Judge, lie: Lie, toward: int) -> Came:
    """Go through the waves; ask the gate after the liars and after each round of all."""
    seen: list[Sample] = []
    panels = {True: Panel(400), False: Panel(200)}
    step = taken = 0
    for devices in WAVES:
        taken, began = devices, step
        for step in range(began, began + EACH):
            for device in fleet.liars:
                new = device < taken
                seen += _let_in(panels[new], fleet.lying(device, new, step, lie, toward), step)
            first = step == began
            if first and _asked(judge, seen, taken, heard_s=0.0) is Word.FAIL:
                return Came("stopped", taken)
            for device in fleet.others():
                one = [fleet.honest(device, device < taken, step)]
                seen += _let_in(panels[device < taken], one, step)
            word = _asked(judge, seen, taken, heard_s=STEP_S * (step - began + 1))
            if word is Word.FAIL:
                return Came("stopped", taken)
        step += 1
        if word is not Word.PASS:
            return Came("held", taken)
    return Came("passed", taken)


def _let_in(panel: Panel, sent: Iterable[Sample], step: int) -> Iterator[Sample]:
    for sample in sent:
        end = datetime.fromtimestamp(sample.at, timezone.utc)
        begin = datetime.fromtimestamp(sample.at - STEP_S, timezone.utc)
        at = own_time(begin, end, moment=_time(step))
        if at is not None and panel.takes(sample.device, 0, _time(step)):
            yield sample


def _asked(judge: Judge, seen: list[Sample], taken: int, *, heard_s: float) -> Word:
    heard = {SERIES: heard_s}
    known = Evidence(samples={SERIES: seen}, took=taken, heard_s=heard, listen_s=3 * STEP_S)
    return judge(known)


def _time(step: int) -> float:
    return START + STEP_S * step

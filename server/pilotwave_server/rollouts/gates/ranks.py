"""Evidence that devices of one arm stand worse than those of the other: an e-process over ranks.

Units (one figure of one device) come one after the other. The m old units, in order, leave gaps,
and a new unit falls into one of them. If the new arm is no different, each place among all units so
far is as likely for it as any other, whatever their distribution (sequential ranks are uniform and
independent), so a gap that holds j of the n new units so far takes it with probability
(j + 1) / (m + n + 1). Against that stands ((m + 1) p + j) / (m + n + 1), where p is the gap's part
if figures were normal and the new ones worse by d standard deviations: where new units gather is
learnt as they come, in both alike. The product of these ratios, mixed over `_SHIFTS`, is a test
martingale: it exceeds 1/alpha with a chance of at most alpha, whenever one looks (Ville's
inequality; Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, for betting
on ranks). Normal figures only make it quick; that it holds rests on ranks alone, so heavy tails and
strange units of measure do no harm.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from statistics import NormalDist
from typing import NamedTuple

_SHIFTS = (0.5, 1.0, 2.0, 3.0)
_NORMAL = NormalDist()
_KEPT = 0.1  # of each stake is not bet, so that one odd device takes no more than nine tenths of it


class Unit(NamedTuple):
    """One figure of one device; the greater, the worse."""

    new: bool
    worse: float


class Stakes:
    """What was won by betting on the units so far."""

    def __init__(self) -> None:
        self._old: list[float] = []
        self._new: list[float] = []
        self._logs = [0.0] * len(_SHIFTS)

    def add(self, unit: Unit) -> None:
        """Take the next unit: an old one makes a gap more, a new one is bet on."""
        if unit.new:
            self._bet(unit.worse)
            insort(self._new, unit.worse)
        else:
            insort(self._old, unit.worse)

    def _bet(self, worse: float) -> None:
        old, new = self._old, self._new
        # what equals an old unit counts as better than it, in the new arm's favour
        place = bisect_left(old, worse)
        low = 0 if place == 0 else bisect_right(new, old[place - 1])
        high = len(new) if place == len(old) else bisect_right(new, old[place])
        there = high - low
        low_score, high_score = _score(place, len(old)), _score(place + 1, len(old))
        for i, shift in enumerate(_SHIFTS):
            part = _between(low_score - shift, high_score - shift)
            odds = ((len(old) + 1) * part + there) / (1 + there)
            self._logs[i] += math.log(_KEPT + (1 - _KEPT) * odds)

    @property
    def log_evidence(self) -> float:
        """The log of the e-value."""
        top = max(self._logs)
        return top + math.log(sum(math.exp(log - top) for log in self._logs) / len(self._logs))


def log_evidence(units: Iterable[Unit]) -> float:
    """Return the log of the e-value after these units, in the order in which they came."""
    stakes = Stakes()
    for unit in units:
        stakes.add(unit)
    return stakes.log_evidence


def _score(place: int, count: int) -> float:
    """Return where the lower end of the gap at `place` lies if the old figures are normal."""
    if place == 0:
        return -math.inf
    if place > count:
        return math.inf
    return _NORMAL.inv_cdf(place / (count + 1))


def _between(low: float, high: float) -> float:
    """Return the chance of a normal figure between the two."""
    # on the far side the difference of two numbers near 1 would be rounded away
    if low > 0:
        low, high = -high, -low
    return _below(high) - _below(low)


def _below(score: float) -> float:
    return math.erfc(-score / math.sqrt(2)) / 2

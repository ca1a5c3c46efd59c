"""Evidence that devices of one arm stand worse than those of the other: an e-process over ranks.

Units (one figure of one device) come one after the other. If the new arm is no worse, a new unit is
as likely to take each rank among all units so far, whatever their distribution, and the ranks are
independent of each other (sequential ranks; Reynolds 1975; as conformal e-values: Vovk, Gammerman
and Shafer, "Algorithmic Learning in a Random World", 2005). A rank becomes a normal score z, and
exp(d z - d d / 2) multiplies what is staked on a shift of d standard deviations; the mixture over
`_SHIFTS` is a test martingale, which exceeds 1/alpha with a chance of at most alpha, whenever one
looks (Ville). Only order counts, so heavy tails and strange units of measure do no harm. If the new
arm is better, ranks are only lower: putting old units above their equals raises no new unit's rank.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterable
from statistics import NormalDist
from typing import NamedTuple

_SHIFTS = (0.5, 1.0, 2.0)
_LEAST = -40.0  # the score of the very best
_NORMAL = NormalDist()


class Unit(NamedTuple):
    """One figure of one device; the greater, the worse."""

    new: bool
    worse: float


def log_evidence(units: Iterable[Unit]) -> float:
    """Return the log of the e-value after these units, in the order in which they came."""
    before: list[float] = []
    stakes = [0.0] * len(_SHIFTS)
    for unit in units:
        if unit.new:
            # units that are equal count as worse, which is never in the new arm's disfavour
            at_least = len(before) - bisect_left(before, unit.worse)
            score = _score((1 + at_least) / (1 + len(before)))
            stakes = [s + d * score - d * d / 2 for s, d in zip(stakes, _SHIFTS, strict=True)]
        insort(before, unit.worse)
    top = max(stakes)
    return top + math.log(sum(math.exp(stake - top) for stake in stakes) / len(stakes))


def _score(share: float) -> float:
    return -_NORMAL.inv_cdf(share) if share < 1 else _LEAST

"""Evidence that a share is above a bound, safe to look at after each device: an e-process.

Of `seen` trials in order of their begin, `bad` went wrong. Against "at most a share `bound` goes
wrong" stands a mixture of likelihood ratios of worse shares; under that hypothesis it is a
supermartingale, so by Ville's inequality it exceeds 1/alpha with a chance of at most alpha,
whenever and however often one looks (Waudby-Smith and Ramdas, "Estimating means of bounded random
variables by betting", 2024; Robbins 1970 for mixtures). It rises with each failure, falls with
each success, and depends on the counts alone, not on their order.

Ville's 1/alpha leaves room, because each failure makes the ratio jump beyond it. `threshold` is the
least level whose chance of ever being crossed, at a share of exactly `bound`, is at most three
quarters of alpha: by counting all paths up to a horizon, and by Ville beyond it. For any lesser
share the chance is less.
"""

from __future__ import annotations

import math
from functools import lru_cache

from pilotwave_protocol.shares import bet

# The worse shares, as odds times the bound's, and the weight of each. They were chosen in
# bench/gates.py for the fewest devices until 5, 10 and 30 % against a bound of 1 % are stopped; the
# first one has any share above the bound found in the end, the last one ("it always fails") has two
# dead canaries of two stop a version where 5 % may fail.
_RATIOS = (1.5, 3.0, 5.0, 11.0, 42.0, 1000.0)
_WEIGHTS = (0.05, 0.09, 0.24, 0.285, 0.285, 0.05)
_HORIZON = 500
_FINEST_ALPHA = 1e-6
_STEPS = 10
_AIM = 0.75  # of alpha, so that ten thousand simulated rollouts stay below it too
_GAIN = 1.5  # no level lies further below log(1/alpha): a ratio never jumps by more at a time


def log_evidence(bad: int, seen: int, bound: float) -> float:
    """Return the log of the e-value. `bound` lies between 0 and 1; 0 <= `bad` <= `seen`."""
    good = seen - bad
    terms = [log_weight + bad * up + good * down for log_weight, up, down in _bets(bound)]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms))


@lru_cache(maxsize=256)
def _bets(bound: float) -> tuple[tuple[float, float, float], ...]:
    """By worse share: log of its weight, of what a failure and of what a success multiplies by."""
    weighted = zip(_RATIOS, _WEIGHTS, strict=True)
    return tuple((math.log(weight), *bet(bound, ratio)) for ratio, weight in weighted)


@lru_cache(maxsize=512)
def threshold(bound: float, alpha: float) -> float:
    """Return the log of the level at which an e-value speaks against the bound with error alpha."""
    ville = -math.log(alpha)
    if alpha < _FINEST_ALPHA:
        return ville
    low, high = max(0.0, ville - _GAIN), ville
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _chance(bound, middle) <= _AIM * alpha:
            high = middle
        else:
            low = middle
    return high


def _chance(bound: float, level: float) -> float:
    """Return a bound on the chance that the e-value ever reaches `level` at a share of `bound`."""
    alive, crossed, limit = [1.0], 0.0, 0
    for seen in range(1, _HORIZON + 1):
        while limit <= seen and log_evidence(limit, seen, bound) < level:
            limit += 1
        after = [0.0] * (len(alive) + 1)
        for bad, chance in enumerate(alive):
            after[bad] += chance * (1 - bound)
            after[bad + 1] += chance * bound
        crossed += sum(after[limit:])
        alive = after[:limit]
    # what has not crossed by then crosses later with at most its mean over the level
    left = sum(c * math.exp(log_evidence(bad, _HORIZON, bound)) for bad, c in enumerate(alive))
    return crossed + left * math.exp(-level)


def upper_bound(bad: int, seen: int, alpha: float) -> float:
    """Return a share that the true one does not exceed, with error alpha at all times together.

    The method of mixtures with a Beta(1/2, 1/2) prior (Robbins 1970; Howard, Ramdas, McAuliffe and
    Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", 2021).
    """
    if bad == seen:
        return 1.0
    marginal = _log_beta(bad + 0.5, seen - bad + 0.5) - _log_beta(0.5, 0.5)
    low, high = bad / seen, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if middle == 1.0:  # so close that no number lies between
            break
        likelihood = (bad * math.log(middle) if bad else 0.0) + (seen - bad) * math.log1p(-middle)
        if marginal - likelihood < -math.log(alpha):
            low = middle
        else:
            high = middle
    return high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

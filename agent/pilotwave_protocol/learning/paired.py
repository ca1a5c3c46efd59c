"""What labels say of two ways to answer the same inputs. Pure, and exact for few labels.

Only inputs on which one way is right and the other wrong tell them apart: `better` where the new
one is right, `worse` where the old one is.
"""

from __future__ import annotations

import math

from pilotwave_protocol.shares import chance_of_at_most, upper_bound

DOUBT = 0.05
"""How often what is no better may pass, over all tries together."""
WORSE = 0.01
"""How often a single look may take what is as good for worse."""


def doubt_of_try(number: int) -> float:
    """Return the part of the doubt that a try spends, counted from 1: all of them come to `DOUBT`
    at most, however often somebody tries again."""
    return DOUBT / (number * (number + 1))


def least_gain(better: int, worse: int, rows: int, *, doubt: float) -> float:
    """Return by how much the new way is right more often, at least: the lower bound of the share of
    `better` less the upper bound of that of `worse`, each exact (Clopper and Pearson, Biometrika
    1934) with half of the doubt (Bonferroni), so that both hold at once."""
    if rows == 0:
        return -1.0
    surely = 1 - doubt / 2
    lost = upper_bound(worse, rows, surely)
    return 1 - upper_bound(rows - better, rows, surely) - lost


def chance_of_worse(better: int, worse: int) -> float:
    """Return the chance that as many of the inputs which tell the ways apart, or more, speak for
    the old one if both are as good: the exact test of McNemar (Psychometrika 1947), one-sided."""
    apart = better + worse
    return chance_of_at_most(better, apart, 0.5) if apart else 1.0


def is_worse(better: int, worse: int) -> bool:
    """Say whether labels show that the new way is worse."""
    return worse > better and chance_of_worse(better, worse) <= WORSE


def shown(share: float) -> str:
    """Write a share with three digits after the point, never more than it is."""
    return f"{math.floor(share * 1000) / 1000:.3f}"

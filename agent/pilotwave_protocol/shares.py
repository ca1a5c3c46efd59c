"""What counts say of a share: how large it may be, and what speaks for a larger one. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

_HALVINGS = 60


def upper_bound(count: int, rows: int, confidence: float) -> float:
    """Return the largest share that `count` of `rows` do not rule out, at this confidence (Clopper
    and Pearson, Biometrika 1934): `count` or fewer would still come up in 1 - confidence of all
    draws."""
    if count >= rows:
        return 1.0
    low, high = count / rows, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if chance_of_at_most(count, rows, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def chance_of_at_most(count: int, rows: int, share: float) -> float:
    """Return the chance of `count` or fewer of `rows`, each of them with the chance `share`."""
    yes, no = math.log(share), math.log1p(-share) if share < 1 else -math.inf
    return math.fsum(math.exp(t) for t in _terms(count, rows, yes, no))


def _terms(count: int, rows: int, yes: float, no: float) -> Iterator[float]:
    """The logarithm of each count's chance; each follows from the one before."""
    ways = 0.0
    for so_many in range(count + 1):
        yield ways + so_many * yes + (rows - so_many) * no
        ways += math.log(rows - so_many) - math.log(so_many + 1)


def bet(bound: float, odds: float) -> tuple[float, float]:
    """Return the logarithms of what a yes and a no multiply the likelihood ratio by of a share
    whose odds are `odds` times those of `bound`, against `bound`."""
    # share / bound and (1 - share) / (1 - bound), from the odds
    scale = 1 - bound + odds * bound
    return math.log(odds / scale), -math.log(scale)

"""Make one result of many devices' updates. Pure, each rule with its source.

Changes of a head (`sgd`) come as the rows of one array. None of these rules knows who a row is of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pilotwave_protocol.learning.plan import Aggregate
from pilotwave_protocol.learning.statistics import Floats

_BLOCK = 256
_TURNS = 100
_CLOSE = 1e-6


def mean(changes: Floats) -> Floats:
    """Each device alike: FedAvg (McMahan et al., AISTATS 2017) without weights, which a device
    could lie about. One bad device decides the result."""
    return np.asarray(changes.mean(axis=0))


def clipped_mean(changes: Floats) -> Floats:
    """The mean of changes none longer than the median one (Sun et al., "Can You Really Backdoor
    Federated Learning?", 2019, with the bound of the round itself)."""
    norms = np.linalg.norm(changes, axis=1)
    scale = np.minimum(1, np.median(norms) / np.maximum(norms, 1e-30))
    return np.asarray((changes * scale[:, None]).mean(axis=0))


def geometric_median(changes: Floats) -> Floats:
    """The point with the least sum of distances: less than half of the devices cannot carry it
    away (Pillutla et al., "Robust Aggregation for Federated Learning", IEEE TSP 2022), found by
    Weiszfeld's steps with a floor under the distances."""
    middle = np.median(changes, axis=0)
    for _ in range(_TURNS):
        distances = np.linalg.norm(changes - middle, axis=1)
        weights = 1 / np.maximum(distances, 1e-9)
        weights /= weights.sum()
        after = weights @ changes
        moved = float(np.linalg.norm(after - middle))
        middle = after
        if moved <= _CLOSE * max(float(np.linalg.norm(middle)), 1e-30):
            break
    return np.asarray(middle)


def multi_krum(changes: Floats, bad: int | None = None) -> Floats:
    """The mean of those that lie nearest to their neighbours (Blanchard et al., NeurIPS 2017).

    `bad` is how many may be wrong, a fifth of them where nobody says; so many are left out.
    """
    count = len(changes)
    bad = max(1, count // 5) if bad is None else bad
    if count < 2 * bad + 3:
        return geometric_median(changes)  # its proof needs n >= 2 f + 3
    near = count - bad - 2
    squares = (changes**2).sum(axis=1)
    sums = np.empty(count)
    for start in range(0, count, _BLOCK):
        some = slice(start, start + _BLOCK)
        apart = squares[some, None] + squares - 2 * changes[some] @ changes.T
        # the nearest one is the row itself
        sums[some] = np.partition(np.maximum(apart, 0), near, axis=1)[:, : near + 1].sum(axis=1)
    kept = np.argsort(sums, kind="stable")[: count - bad]
    return np.asarray(changes[np.sort(kept)].mean(axis=0))


OF_CHANGES: Mapping[Aggregate, Callable[[Floats], Floats]] = {
    Aggregate.MEAN: mean,
    Aggregate.CLIPPED_MEAN: clipped_mean,
    Aggregate.GEOMETRIC_MEDIAN: geometric_median,
    Aggregate.MULTI_KRUM: multi_krum,
}

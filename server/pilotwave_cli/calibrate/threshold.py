"""Work out a threshold of confidence from labelled inputs, with or without a promise.

The promise: of all inputs, at most the share `excess` are wrong and would have been right at the
bigger model, with a confidence of 1 - delta. It is Learn-then-Test (Angelopoulos et al. 2021) with
a fixed sequence: thresholds are tested from strict to loose, each by the exact bound of Clopper and
Pearson, and the last one before the first failure is taken. What is best on the data alone breaks
such a promise in more than half of all samples (docs/tiers.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilotwave_cli.optimize import guard
from pilotwave_protocol.shares import chance_of_at_most

STEPS = 200
"""Thresholds are multiples of 1 / STEPS, fixed before any data are seen."""
_MOST_LABELS = 1_000_000


class CannotPromise(Exception):
    """The data do not show what is to be promised; the sentence says what would."""


@dataclass(frozen=True)
class Labelled:
    """For each input: how sure the small model is, and whether each model is right."""

    confidence: NDArray[np.float64]
    small: NDArray[np.bool_]
    big: NDArray[np.bool_]

    @property
    def rows(self) -> int:
        """How many inputs there are."""
        return len(self.confidence)

    def escalated(self, threshold: float) -> NDArray[np.bool_]:
        """Say which inputs go up."""
        return np.asarray(self.confidence < threshold)

    def share(self, threshold: float) -> float:
        """Return the share of inputs that go up."""
        return float(self.escalated(threshold).mean())

    def harmed(self, threshold: float) -> int:
        """Count inputs that stay, are wrong and would be right at the bigger model."""
        return int((~self.small & self.big & ~self.escalated(threshold)).sum())

    def right(self, threshold: float) -> float:
        """Return the share of right answers of both together."""
        return float(np.where(self.escalated(threshold), self.big, self.small).mean())


def promised(data: Labelled, *, excess: float, delta: float, share: float) -> float:
    """Return the loosest threshold that keeps the promise with at most `share` escalated. Raises
    `CannotPromise`."""
    threshold = learn_then_test(data, excess, delta)
    if threshold is None or data.share(threshold) > share:
        raise CannotPromise(_what_would(data, threshold, excess, delta, share))
    if not data.escalated(threshold).any():
        raise CannotPromise(
            "the small model alone keeps this promise: nothing has to be escalated, and the "
            "version needs no file for it"
        )
    return threshold


def learn_then_test(data: Labelled, excess: float, delta: float) -> float | None:
    """Return the loosest threshold that is shown to do no more harm than `excess`; None where not
    even the strictest is."""
    most = most_harmed(data.rows, excess, delta)
    found = None
    for step in range(STEPS, -1, -1):
        if data.harmed(step / STEPS) > most:
            break
        found = step / STEPS
    return found


def most_harmed(rows: int, excess: float, delta: float) -> int:
    """Return how many of `rows` may be harmed for the bound to show at most `excess`; -1 where none
    may be."""
    low, high = -1, rows  # all of them never show it
    while high - low > 1:
        middle = (low + high) // 2
        if chance_of_at_most(middle, rows, excess) <= delta:
            low = middle
        else:
            high = middle
    return low


def at_share(data: Labelled, share: float) -> float:
    """Return the threshold below which this share of the data lies: a beginning, no promise."""
    return min(math.floor(float(np.quantile(data.confidence, share)) * 1e6) / 1e6, 1.0)


def check_big_beats_small(data: Labelled, threshold: float, delta: float) -> None:
    """Raise `CannotPromise` unless the bigger model is better on what is escalated, by more than
    chance (sign test over the inputs that only one of them gets right)."""
    up = data.escalated(threshold)
    better, worse = (
        int((up & data.big & ~data.small).sum()),
        int((up & data.small & ~data.big).sum()),
    )
    chance = chance_of_at_most(worse, better + worse, 0.5) if better + worse else 1.0
    if better <= worse or chance > delta:
        raise CannotPromise(
            f"the bigger model has to be better on what is escalated: of {int(up.sum())} inputs it "
            f"corrects {better} and spoils {worse}, which "
            f"{'is no gain' if better <= worse else 'can be chance'}"
        )


def _what_would(
    data: Labelled, threshold: float | None, excess: float, delta: float, share: float
) -> str:
    """Say what is missing: labels, or a larger share."""
    strictest = max(s for s in range(STEPS + 1) if data.share(s / STEPS) <= share) / STEPS
    harm = data.harmed(strictest) / data.rows
    labels = _enough(harm, data.rows, excess, delta)
    words = f"{data.rows} labelled inputs cannot show an excess of at most {guard.percent(excess)}"
    if threshold is not None:
        words += f" with at most {guard.percent(share)} escalated: it takes "
        words += guard.percent(data.share(threshold))
    if labels is None:
        return (
            f"{words}; no number of labels would do, as {guard.percent(harm)} are harmed with the "
            f"most that may be escalated: raise --excess or --share"
        )
    return f"{words}; {labels} would do, if they are like these, or a larger --excess or --share"


def _enough(harm: float, rows: int, excess: float, delta: float) -> int | None:
    """Return how many labels, more than `rows`, would show `excess` with this share harmed;
    None where no number would."""

    def shows(labels: int) -> bool:
        return math.ceil(harm * labels - 1e-9) <= most_harmed(labels, excess, delta)

    low, high = rows, rows * 2
    while not shows(high):
        low, high = high, high * 2
        if high > _MOST_LABELS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high

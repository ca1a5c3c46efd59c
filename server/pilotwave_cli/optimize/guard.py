"""Decide whether a variant loses too much: by an exact bound, not by two accuracies' difference.

What counts are inputs that the source model gets right and the variant wrong: k of n. How many
that may be in use, k and n show up to a bound (Clopper and Pearson, Biometrika 1934), which is the
largest share p for which k or fewer of n would still come up in 1 - confidence of all draws.
Without labels every disagreement counts, as the loss can be no larger than that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotwave_protocol.shares import upper_bound

CONFIDENCE = 0.95
_MOST = 10_000_000

Top = NDArray[np.int64]


@dataclass(frozen=True)
class Judged:
    """What the data show of a variant. `top1` is None without labels, `worse` the k of n."""

    rows: int
    worse: int
    bound: float
    agreement: float
    top1: float | None
    why: str = ""

    @property
    def accepted(self) -> bool:
        """Say whether it loses no more than was allowed."""
        return not self.why


def judge(source: Top, variant: Top, labels: Top | None, max_loss: float) -> Judged:
    """Compare the classes that both answered, input by input."""
    rows = len(source)
    wrong = variant != (source if labels is None else labels)
    worse = int((wrong if labels is None else wrong & (source == labels)).sum())
    bound = upper_bound(worse, rows, CONFIDENCE)
    return Judged(
        rows=rows,
        worse=worse,
        bound=bound,
        agreement=float((source == variant).mean()),
        top1=None if labels is None else float((variant == labels).mean()),
        why="" if bound <= max_loss else _why(worse, rows, bound, max_loss, labels is not None),
    )


def _why(worse: int, rows: int, bound: float, max_loss: float, labelled: bool) -> str:
    what = "are wrong and were right before" if labelled else "are answered otherwise"
    said = f"{worse} of {rows} inputs {what}, which shows a loss of up to {percent(bound)}"
    more = enough(worse / rows, max_loss)
    advice = f"; with {more} inputs and this share it would pass" if more else ""
    return f"{said}; at most {percent(max_loss)} is allowed{advice}"


def percent(share: float) -> str:
    """Show a share so that rounding never makes it look smaller."""
    return f"{math.ceil(share * 1000 - 1e-9) / 10:g}%"


def enough(share: float, max_loss: float) -> int | None:
    """Return how many inputs would show a loss within `max_loss`, were this share of them wrong;
    None where no number would."""
    if share >= max_loss:
        return None
    rows = 1
    while upper_bound(math.floor(share * rows), rows, CONFIDENCE) > max_loss:
        rows *= 2
        if rows > _MOST:
            return None
    low = rows // 2
    while rows - low > 1:
        middle = (low + rows) // 2
        if upper_bound(math.floor(share * middle), middle, CONFIDENCE) > max_loss:
            low = middle
        else:
            rows = middle
    return rows


def top_of(answers: NDArray[Any]) -> Top:
    """Return the class of each answer."""
    return np.asarray(answers.argmax(axis=1), np.int64)

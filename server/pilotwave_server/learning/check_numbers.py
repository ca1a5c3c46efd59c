"""Whether the numbers of an update can come from labelled examples at all. Pure.

No check can tell a wrong label from a right one. What these rule out is that one device counts for
more than the plan's `most_examples` honest ones, whatever it sends.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.statistics import Floats, Statistics
from pilotwave_server.errors import Invalid

ROUNDING = 1e-6
"""Of the largest number there: what rounding to float32 may change, ten times over."""


class ImpossibleUpdate(Invalid):
    """No examples give these numbers."""

    code: ClassVar[str] = "impossible_update"


def check_sums(found: Statistics, plan: TrainingPlan, *, examples: int) -> None:
    """Check sums of `ridge` against what the plan allows and against each other.

    With the number of examples of each class known from the ones' row, [X Y]'[X Y] is known whole;
    of any examples it is positive semidefinite (a Gram matrix: Horn and Johnson, Matrix Analysis,
    7.2.10). So B is bounded by A: sums that were scaled or turned round are none of any examples.
    """
    if not plan.least_examples <= examples <= plan.most_examples:
        raise ImpossibleUpdate(
            f"expected {plan.least_examples} to {plan.most_examples} examples; got {examples}"
        )
    counts = found.cross[-1]
    if found.gram[-1, -1] != examples or counts.sum() != examples or (counts < 0).any():
        raise ImpossibleUpdate(
            f"expected sums of {examples} examples; they are of {found.gram[-1, -1]:g}, and of"
            f" {counts.sum():g} by their classes"
        )
    trace = float(np.trace(found.gram))
    most = examples * (float(plan.clip) ** 2 + 1)
    if trace > most * (1 + ROUNDING):
        raise ImpossibleUpdate(
            f"expected embeddings of at most {plan.clip} each, so a trace of at most {most:g};"
            f" got {trace:g}"
        )
    _check_gram(found, counts, trace)


def _check_gram(found: Statistics, counts: Floats, trace: float) -> None:
    whole = np.block([[found.gram, found.cross], [found.cross.T, np.diag(counts)]])
    room = ROUNDING * (trace + float(counts.sum()))
    try:
        np.linalg.cholesky(whole + room * np.eye(len(whole)))
    except np.linalg.LinAlgError:
        raise ImpossibleUpdate(
            "expected sums over examples, [X Y]'[X Y] positive semidefinite; these are not"
        ) from None


def check_change(change: Floats, plan: TrainingPlan, *, examples: int) -> None:
    """Check a change of `sgd`: as long as the plan allows."""
    if not plan.least_examples <= examples <= plan.most_examples:
        raise ImpossibleUpdate(
            f"expected {plan.least_examples} to {plan.most_examples} examples; got {examples}"
        )
    length = float(np.linalg.norm(change))
    if length > float(plan.clip) * (1 + ROUNDING):
        raise ImpossibleUpdate(f"expected a change of at most {plan.clip}; got {length:g}")

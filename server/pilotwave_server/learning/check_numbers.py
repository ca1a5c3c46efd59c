"""Whether the numbers of an update can come from labelled examples at all. Pure.

No check can tell a wrong label from a right one. What these rule out is that one device counts for
more than the plan's `most_examples` honest ones, whatever it sends; with privacy noise, more than
these and noise as large as an honest device's.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from pilotwave_protocol.learning.noise import longest, sensitivity
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
    _check_examples(plan, examples)
    if plan.noise is not None:
        _check_length(found.numbers(), plan, examples / plan.most_examples * sensitivity(plan))
        return
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
    _check_examples(plan, examples)
    _check_length(change, plan, float(plan.clip))


def _check_examples(plan: TrainingPlan, examples: int) -> None:
    if not plan.least_examples <= examples <= plan.most_examples:
        raise ImpossibleUpdate(
            f"expected {plan.least_examples} to {plan.most_examples} examples; got {examples}"
        )


def _check_length(numbers: Floats, plan: TrainingPlan, alone: float) -> None:
    """With noise, numbers need be of no examples any more; what is left is how long they are."""
    length, most = float(np.linalg.norm(numbers)), longest(plan, alone, numbers.size)
    if length > most * (1 + ROUNDING):
        raise ImpossibleUpdate(
            f"expected numbers with a norm of at most {most:.4g}; got {length:.4g}"
        )

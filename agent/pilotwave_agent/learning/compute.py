"""One device's update, from embeddings and classes: the sums of `ridge`, or a change of `sgd`.

NumPy alone, as every device with a model's runtime has it. What reads the examples, runs the model
and signs is elsewhere; nothing here touches a disk.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import numpy as np

from pilotwave_protocol.learning import noise
from pilotwave_protocol.learning.gradient import change_of, clipped
from pilotwave_protocol.learning.plan import Steps, TrainingPlan
from pilotwave_protocol.learning.statistics import Classes, Floats, Statistics, with_ones

Batch = tuple[Floats, Classes]


def ridge_update(batches: Iterable[Batch], plan: TrainingPlan) -> Statistics:
    """Sum up at most `most_examples`, a batch at a time: memory is that of one batch and the sums.

    Raises `ValueError` for a class or a width that the plan does not have.
    """
    found = Statistics.zero(plan.features, plan.classes)
    left = plan.most_examples
    for embeddings, classes in batches:
        rows = with_ones(clipped(_checked(embeddings, classes, plan)[:left], float(plan.clip)))
        np.add(found.gram, rows.T @ rows, out=found.gram)
        np.add.at(found.cross.T, classes[:left], rows)
        left -= len(rows)
        if left == 0:
            break
    return found


def sgd_update(
    head: Floats, batches: Iterable[Batch], plan: TrainingPlan, *, seed: int | None = None
) -> tuple[Floats, int]:
    """Return how a head [features + 1, classes] changes by at most `most_examples`, at most `clip`
    long, and by how many examples. Raises `ValueError`.
    """
    checked = [(_checked(x, y, plan), y) for x, y in batches]
    rows = np.concatenate([x for x, _ in checked])[: plan.most_examples]
    classes = np.concatenate([y for _, y in checked])[: plan.most_examples]
    seed = secrets.randbits(64) if seed is None else seed
    steps = plan.steps or Steps()
    return change_of(head, rows, classes, steps, clip=float(plan.clip), seed=seed), len(rows)


def with_noise(numbers: Floats, plan: TrainingPlan) -> Floats:
    """Add this device's share of the plan's noise, if it asks for any."""
    if plan.noise is None:
        return numbers
    return np.asarray(numbers + noise.share(plan) * noise.gaussians(numbers.size))


def _checked(embeddings: Floats, classes: Classes, plan: TrainingPlan) -> Floats:
    rows = np.asarray(embeddings, np.float64)
    if rows.ndim != 2 or rows.shape[1] != plan.features or len(rows) != len(classes):
        raise ValueError(
            f"expected embeddings [n, {plan.features}] and n classes; got {list(rows.shape)} and"
            f" {len(classes)}"
        )
    if len(classes) and not 0 <= min(classes) <= max(classes) < plan.classes:
        raise ValueError(
            f"expected classes from 0 to {plan.classes - 1}; got {min(classes)} to {max(classes)}"
        )
    if not np.isfinite(rows).all():
        raise ValueError("expected finite embeddings")
    return rows

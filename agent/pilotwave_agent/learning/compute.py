"""One device's update, from embeddings and classes: the sums of `ridge`, or a step of `sgd`.

NumPy alone, as every device with a model's runtime has it. What reads the examples, runs the model
and signs is elsewhere; nothing here touches a disk.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

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
    head: Floats, embeddings: Floats, classes: Classes, plan: TrainingPlan, *, seed: int
) -> Floats:
    """Return how the head [features + 1, classes] changes by this device's examples.

    Softmax regression by minibatch gradient descent, as in FedAvg (McMahan et al., AISTATS 2017).
    The change is at most `clip` long.
    """
    steps = plan.steps or Steps()
    rows = with_ones(_checked(embeddings, classes, plan)[: plan.most_examples])
    wanted = np.eye(plan.classes)[classes[: plan.most_examples]]
    random, now = np.random.default_rng(seed), head.copy()
    for _ in range(steps.epochs):
        order = random.permutation(len(rows))
        for start in range(0, len(rows), steps.batch):
            some = order[start : start + steps.batch]
            now -= float(steps.rate) * _gradient(now, rows[some], wanted[some])
    change = now - head
    return np.asarray(clipped(change.reshape(1, -1), float(plan.clip))).reshape(head.shape)


def clipped(rows: Floats, longest: float) -> Floats:
    """Return rows none of which is longer than `longest`, in the directions that they had."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * np.minimum(1, longest / np.maximum(norms, 1e-30)))


def _gradient(head: Floats, rows: Floats, wanted: Floats) -> Floats:
    z = rows @ head
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(rows.T @ (e / e.sum(axis=1, keepdims=True) - wanted) / len(rows))


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

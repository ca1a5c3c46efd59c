"""How a head changes by a device's examples: what `sgd` computes in a round.

Softmax regression by minibatch gradient descent, as in FedAvg (McMahan et al., AISTATS 2017).
"""

from __future__ import annotations

import numpy as np

from pilotwave_protocol.learning.plan import Steps
from pilotwave_protocol.learning.statistics import Classes, Floats, with_ones


def change_of(
    head: Floats, embeddings: Floats, classes: Classes, steps: Steps, *, clip: float, seed: int
) -> Floats:
    """Return the change of a head [features + 1, classes], at most `clip` long."""
    rows, wanted = with_ones(embeddings), np.eye(head.shape[1])[classes]
    random, now = np.random.default_rng(seed), head.copy()
    for _ in range(steps.epochs):
        order = random.permutation(len(rows))
        for start in range(0, len(rows), steps.batch):
            some = order[start : start + steps.batch]
            now -= float(steps.rate) * _gradient(now, rows[some], wanted[some])
    return clipped((now - head).reshape(1, -1), clip).reshape(head.shape)


def clipped(rows: Floats, longest: float) -> Floats:
    """Return rows none of which is longer than `longest`, in the directions that they had."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows * np.minimum(1, longest / np.maximum(norms, 1e-30)))


def _gradient(head: Floats, rows: Floats, wanted: Floats) -> Floats:
    z = rows @ head
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(rows.T @ (e / e.sum(axis=1, keepdims=True) - wanted) / len(rows))

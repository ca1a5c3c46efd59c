"""Fit what one device adds to a version's scores: a residual head, NumPy alone.

Penalised multinomial logistic regression with the version's own scores as the offset: of all heads
D with |D| at most `distance`, the one that makes the labels most likely less penalty / 2 |D|^2.
Without examples it is zero, which is the version's own answer. Projected gradient steps with
Nesterov's momentum, begun anew where they overshoot (O'Donoghue and Candes, Found. Comput. Math.
2015): a bounded number of them, and the same numbers from the same examples.
"""

from __future__ import annotations

import math

import numpy as np

from pilotwave_protocol.learning.device_plan import DevicePlan
from pilotwave_protocol.learning.gradient import clipped
from pilotwave_protocol.learning.overlaid import offsets
from pilotwave_protocol.learning.statistics import Classes, Floats, with_ones

MOST_STEPS = 300
_CLOSE = 1e-4


def fit(embeddings: Floats, scores: Floats, classes: Classes, plan: DevicePlan) -> Floats:
    """Return the head [features + 1, classes]. Rows of all three belong together."""
    rows = with_ones(clipped(np.asarray(embeddings, np.float64), float(plan.clip)))
    base = offsets(scores, plan.scores.kind).astype(np.float64)
    wanted: Floats = np.eye(plan.classes)[classes]
    penalty, longest = float(plan.penalty), float(plan.distance)
    # the softmax bends by at most a half (Boehning, Ann. Inst. Statist. Math. 1992)
    step = 1 / (0.5 * _largest(rows) + penalty)
    head: Floats = np.zeros((rows.shape[1], plan.classes))
    moving = head
    pace = 1.0
    for _ in range(MOST_STEPS):
        slope = rows.T @ (_softmax(base + rows @ moving) - wanted) + penalty * moving
        after = _within(moving - step * slope, longest)
        change = after - head
        if _length(change) <= _CLOSE * max(_length(after), _CLOSE):
            return after
        if np.vdot(moving - after, change) > 0:
            pace = 1.0  # it went too far: without momentum from here
        faster = (1 + math.sqrt(1 + 4 * pace * pace)) / 2
        moving = after + (pace - 1) / faster * change
        head, pace = after, faster
    return head


def _largest(rows: Floats) -> float:
    """Return the largest eigenvalue of X'X."""
    gram = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
    return float(np.linalg.eigvalsh(gram)[-1])


def _within(head: Floats, longest: float) -> Floats:
    length = _length(head)
    return head * (longest / length) if length > longest else head


def _length(head: Floats) -> float:
    return float(np.linalg.norm(head))


def _softmax(scores: Floats) -> Floats:
    exp = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))

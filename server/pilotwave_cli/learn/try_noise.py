"""What privacy noise would leave of a result: tried on the publisher's own examples before a plan
is signed, as if each device had examples like these.

Half of them are learnt from and the other half is judged, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pilotwave_cli.errors import Failed
from pilotwave_cli.learn.base_version import Judged
from pilotwave_protocol.learning import noise
from pilotwave_protocol.learning.gradient import change_of, clipped
from pilotwave_protocol.learning.plan import MAX_DEVICES, Method, Steps, TrainingPlan
from pilotwave_protocol.learning.statistics import (
    Classes,
    Floats,
    Statistics,
    read_head,
    scores,
    with_ones,
)

MOST_LOST = 0.05
"""The share of the publisher's examples that noise may make wrong."""
_REPEATS = 3
_CLOSE = 1.1


def check_noise(plan: TrainingPlan, found: Judged, head: bytes) -> None:
    """Refuse a plan whose devices are too few for its noise, and say how many it would take.

    `head` is what `sgd` begins with. Raises `Failed`.
    """
    if plan.noise is None:
        return
    x, y = found.embeddings.astype(np.float64), found.labels

    def left(devices: int) -> float:
        return _right(replace(plan, least_devices=devices), x, y, head)

    without = _right(replace(plan, noise=None), x, y, head)
    with_it = left(plan.least_devices)
    if with_it >= without - MOST_LOST:
        return
    enough = least_devices(left, plan.least_devices, without - MOST_LOST)
    takes = f"it takes about {enough:,}" if enough else f"{MAX_DEVICES:,} are too few"
    raise Failed(
        f"with epsilon {plan.noise.epsilon} and {plan.least_devices} devices {with_it:.0%} of your"
        f" examples would come right, where {without:.0%} do without noise: {takes}"
        " (--least-devices), or a larger --epsilon, fewer --most-examples, or --method sgd with"
        " fewer --rounds"
    )


def least_devices(left: Callable[[int], float], too_few: int, wanted: float) -> int | None:
    """Search for the number of devices with which `left` is as good as `wanted`, to a tenth."""
    low, high = too_few, too_few
    while left(high) < wanted:
        if high >= MAX_DEVICES:
            return None
        low, high = high, min(2 * high, MAX_DEVICES)
    while high / low > _CLOSE:
        middle = round((low * high) ** 0.5)
        low, high = (low, middle) if left(middle) >= wanted else (middle, high)
    return high


def _right(plan: TrainingPlan, x: Floats, y: Classes, head: bytes) -> float:
    """The share that a result of `least_devices` devices gets right of what it has not seen."""
    random = np.random.default_rng(0)  # the same for each number of devices; no secret is hidden
    found = []
    for _ in range(_REPEATS if plan.noise else 1):
        for turn in (0, 1):
            seen, judged = slice(turn, None, 2), slice(1 - turn, None, 2)
            learn = _by_steps if plan.method is Method.SGD else _by_sums
            after = learn(plan, x[seen], y[seen], head, random)
            found.append((scores(after, x[judged]).argmax(axis=1) == y[judged]).mean())
    return float(np.mean(found))


def _by_sums(
    plan: TrainingPlan, x: Floats, y: Classes, _: bytes, random: np.random.Generator
) -> Floats:
    rows = with_ones(clipped(x, float(plan.clip)))
    many = plan.least_devices * plan.least_examples / len(rows)
    size = noise.share(plan) * plan.least_devices**0.5
    upper = np.triu(random.normal(0, size, (rows.shape[1], rows.shape[1])))
    cross = rows.T @ np.eye(plan.classes)[y]
    sums = Statistics(
        many * rows.T @ rows + upper + np.triu(upper, 1).T,
        many * cross + random.normal(0, size, cross.shape),
    )
    return sums.head(float(plan.penalty) + noise.ridge(plan, plan.least_devices))


def _by_steps(
    plan: TrainingPlan, x: Floats, y: Classes, raw: bytes, random: np.random.Generator
) -> Floats:
    head = read_head(raw, features=plan.features, classes=plan.classes)
    size = noise.share(plan) / plan.least_devices**0.5
    mine = slice(plan.least_examples)
    for number in range(plan.rounds):
        order = random.permutation(len(x))[mine]
        change = change_of(
            head, x[order], y[order], plan.steps or Steps(), clip=float(plan.clip), seed=number
        )
        head = head + change + random.normal(0, size, head.shape)
    return head

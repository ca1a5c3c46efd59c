"""What a round's updates make: a head, and what is told of it. Pure; the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pilotwave_protocol.learning import noise
from pilotwave_protocol.learning.plan import Aggregate, TrainingPlan
from pilotwave_protocol.learning.statistics import Floats, read_numbers
from pilotwave_server.learning.aggregate import OF_CHANGES
from pilotwave_server.learning.sum_up import LeftOut, Packed, Validation, leave_one_out, sum_all


@dataclass(frozen=True)
class Result:
    """A round's head, the figures that operators see, and who was left out."""

    head: Floats
    figures: dict[str, Any]
    left_out: tuple[LeftOut, ...] = ()


def result_of(
    plan: TrainingPlan,
    raw: Sequence[bytes],
    before: Floats | None,
    validation: Validation | None,
) -> Result:
    """Make one head of all updates; `before` is the one that `sgd` goes on from.

    Raises `BadMessage`, `LinAlgError`.
    """
    figures: dict[str, Any] = {"devices": len(raw), "left_out": 0}
    left_out: tuple[LeftOut, ...] = ()
    if before is not None:
        head = step(before, raw, plan)
    else:
        head, left_out = _summed(plan, raw, validation, figures)
    if validation is not None and "right" not in figures:
        figures["right"] = validation.share_right(head)
    return Result(head, figures, left_out)


def step(before: Floats, raw: Sequence[bytes], plan: TrainingPlan) -> Floats:
    """Take a head one round further by the changes that devices sent. Raises `BadMessage`."""
    changes = np.empty((len(raw), before.size))
    for place in range(len(raw)):
        changes[place] = read_numbers(raw[place], before.size)
    return before + OF_CHANGES[plan.aggregate](changes).reshape(before.shape)


def _summed(
    plan: TrainingPlan, raw: Sequence[bytes], validation: Validation | None, figures: dict[str, Any]
) -> tuple[Floats, tuple[LeftOut, ...]]:
    updates = Packed(raw, features=plan.features, classes=plan.classes)
    penalty = float(plan.penalty) + noise.ridge(plan, len(raw))
    if plan.aggregate is not Aggregate.LEAVE_ONE_OUT or validation is None:
        return sum_all(updates, penalty).head, ()
    kept = leave_one_out(updates, penalty, validation)
    figures |= {"right": kept.right, "right_with_all": kept.right_with_all}
    figures["left_out"] = len(kept.left_out)
    return kept.head, kept.left_out

"""Make a training plan of what was asked for and of the publisher's own examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from pilotwave_cli.durations import Duration
from pilotwave_cli.errors import CliError
from pilotwave_cli.learn.base_version import Judged
from pilotwave_cli.learn.head_file import scaled, taken_out
from pilotwave_cli.learn.plan_options import PlanOptions
from pilotwave_cli.learn.try_noise import check_noise
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadMessage, BadPlan
from pilotwave_protocol.learning.device_plan import DevicePlan
from pilotwave_protocol.learning.examples import write_examples
from pilotwave_protocol.learning.gradient import change_of
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint
from pilotwave_protocol.learning.plan import (
    ADDS_UP,
    AGGREGATES,
    LEAST_EXAMPLES,
    Aggregate,
    Base,
    Method,
    Noise,
    StartHead,
    Steps,
    TrainingPlan,
    Validation,
    parse_plan,
)
from pilotwave_protocol.learning.privacy import OPEN, Mode, Privacy
from pilotwave_protocol.learning.statistics import Floats, read_head, write_numbers

MOST_EXAMPLES = 200
_STEP = 40
"""A step size over the square of the longest embedding (bench/learn.py)."""


@dataclass(frozen=True)
class MadePlan:
    """A plan, and the files that it names."""

    plan: TrainingPlan | DevicePlan
    raw: bytes
    files: tuple[bytes, ...]


def make_plan(
    model: str, name: str, base: Base, what: PlanOptions, found: Judged, now: datetime
) -> MadePlan:
    """Make a plan and check it. Raises `CliError`, `Failed` where its noise leaves nothing."""
    file = write_examples(found.embeddings.astype(np.float64), found.labels)
    plan = TrainingPlan(
        model=model,
        plan=name,
        base=base,
        embedding=what.embedding,
        features=found.embeddings.shape[1],
        classes=found.scores.shape[1],
        method=what.method,
        aggregate=what.aggregate or _usual(what),
        clip=what.clip or f"{found.longest:.4g}",
        deadline=(now + Duration.parse(what.lasts or "7d")).replace(microsecond=0),
        penalty=what.penalty,
        least_examples=what.least_examples or LEAST_EXAMPLES,
        most_examples=what.most_examples or MOST_EXAMPLES,
        least_devices=what.least_devices,
        noise=Noise(what.epsilon, what.delta) if what.epsilon else None,
        validation=Validation(sha256_hex(file), len(file), len(found.labels)),
        label_sources=tuple(sorted(set(what.label_source or ()))),
        privacy=Privacy(Mode.MASKED, what.group_size) if what.masked else OPEN,
    )
    head = b""
    if what.method is Method.SGD:
        head = write_numbers(scaled(taken_out(what.file, found, what.embedding), found))
        plan = _with_steps(plan, what, found, head, found.longest)
    raw = plan.to_bytes()
    try:
        parse_plan(raw)
        if plan.privacy.masked:
            FixedPoint.of(plan)
    except (BadPlan, BadMessage) as e:
        raise CliError(str(e)) from e
    check_noise(plan, found, head)
    return MadePlan(plan, raw, (file, head) if head else (file,))


def _usual(what: PlanOptions) -> Aggregate:
    allowed = AGGREGATES[what.method]
    return next(a for a in allowed if not what.epsilon or a in ADDS_UP)


def _with_steps(
    plan: TrainingPlan, what: PlanOptions, found: Judged, raw: bytes, longest: float
) -> TrainingPlan:
    """Add what `sgd` needs: where it begins, its steps, and how far one device may go in a round:
    as far as the publisher's own examples would, if nothing else was said."""
    steps = Steps(epochs=what.epochs, rate=what.rate or f"{_STEP / longest**2:.2g}")
    head = read_head(raw, features=plan.features, classes=plan.classes)
    mine = slice(plan.most_examples)
    change = change_of(
        head, found.embeddings[mine].astype(np.float64), found.labels[mine], steps, clip=1e9, seed=0
    )
    return replace(
        plan,
        steps=steps,
        rounds=what.rounds,
        clip=what.clip or f"{_length(change):.4g}",
        head=StartHead(sha256_hex(raw), f"{_length(head):.6g}"),
    )


def _length(numbers: Floats) -> float:
    return float(np.linalg.norm(numbers))

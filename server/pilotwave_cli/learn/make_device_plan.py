"""Make a plan by which each device adapts a version to itself."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from pilotwave_cli.durations import Duration
from pilotwave_cli.errors import CliError
from pilotwave_cli.learn.base_version import Judged
from pilotwave_cli.learn.make_plan import MadePlan
from pilotwave_cli.learn.plan_options import PlanOptions
from pilotwave_protocol.errors import BadPlan
from pilotwave_protocol.learning.device_plan import DevicePlan, Kind, Scores, parse_device_plan
from pilotwave_protocol.learning.plan import Base

_LEAST_EXAMPLES, _MOST_EXAMPLES = 60, 1000


def make_device_plan(
    model: str, name: str, base: Base, what: PlanOptions, found: Judged, now: datetime
) -> MadePlan:
    """Make a plan and check it. Raises `CliError`."""
    clip = what.clip or f"{found.longest:.4g}"
    if what.label_source:
        raise CliError(
            "--label-source goes with --scope fleet: a device that learns for itself counts all of"
            " its labels"
        )
    if what.distance is None:
        raise CliError(
            "--scope device asks for --distance: two scores before the softmax then move against"
            f" each other by at most 1.42 times that, times {clip}, the longest embedding"
        )
    plan = DevicePlan(
        model=model,
        plan=name,
        base=base,
        embedding=what.embedding,
        features=found.embeddings.shape[1],
        classes=found.scores.shape[1],
        scores=Scores(found.output, _kind_of(found)),
        clip=clip,
        distance=what.distance,
        deadline=(now + Duration.parse(what.lasts or "90d")).replace(microsecond=0),
        least_gain=what.least_gain,
        golden=what.golden,
        penalty=what.penalty,
        least_examples=what.least_examples or _LEAST_EXAMPLES,
        most_examples=what.most_examples or _MOST_EXAMPLES,
    )
    raw = plan.to_bytes()
    try:
        parse_device_plan(raw)
    except BadPlan as e:
        raise CliError(str(e)) from e
    return MadePlan(plan, raw, ())


def _kind_of(found: Judged) -> Kind:
    scores = found.scores
    shares = bool(scores.min() >= 0) and np.allclose(scores.sum(axis=1), 1, atol=1e-2)
    return Kind.PROBABILITIES if shares else Kind.LOGITS

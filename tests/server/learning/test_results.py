"""What many updates make, without and with liars, by each rule; and what noise leaves of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pilotwave_agent.learning.compute import ridge_update, sgd_update, with_noise
from pilotwave_protocol.learning.plan import (
    AGGREGATES,
    Aggregate,
    Method,
    Noise,
    Steps,
    TrainingPlan,
)
from pilotwave_protocol.learning.statistics import write_numbers
from pilotwave_server.learning.check_numbers import check_change
from pilotwave_server.learning.results import result_of, step
from pilotwave_server.learning.sum_up import Validation
from tests.protocol.learning.plans import RIDGE, SGD

PLAN = replace(SGD, clip="2", steps=Steps(epochs=2, batch=16, rate="0.5"))


def examples(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, rows)
    return np.eye(6)[classes * 2] + random.normal(0, 0.3, (rows, 6)), classes


VALIDATION = Validation(*examples(300, 999))


def learn(plan: TrainingPlan, *, lie: str = "", liars: int = 0, rounds: int = 4) -> float:
    """The share right after some rounds of 20 devices, of which some lie as much as they may."""
    head = np.zeros((7, 3))
    for _ in range(rounds):
        raw = []
        for seed in range(20):
            x, y = examples(40, seed)
            bad = seed < liars
            change, _ = sgd_update(head, [(x, (y + 1) % 3 if bad and lie == "labels" else y)], plan)
            if bad and lie == "turned round":
                change *= -float(plan.clip) / np.linalg.norm(change)
            check_change(change, plan, examples=40)
            raw.append(write_numbers(change))
        head = step(head, raw, plan)
    return VALIDATION.share_right(head)


@pytest.mark.parametrize("lie", ["labels", "turned round"])
@pytest.mark.parametrize("aggregate", [a for a in AGGREGATES[Method.SGD] if a != Aggregate.MEAN])
def test_four_liars_of_twenty_do_not_carry_a_robust_rule_away(
    aggregate: Aggregate, lie: str
) -> None:
    plan = replace(PLAN, aggregate=aggregate)
    assert learn(plan, lie=lie, liars=4) > learn(plan) - 0.05


def test_what_is_turned_round_costs_the_mean_more_the_less_a_plan_bounds_it() -> None:
    bounded = replace(PLAN, aggregate=Aggregate.MEAN)
    assert learn(bounded, lie="turned round", liars=4) < learn(bounded) - 0.05
    unbounded = replace(PLAN, aggregate=Aggregate.MEAN, clip="100")
    assert learn(unbounded, lie="turned round", liars=4) < 0.5
    robust = replace(unbounded, aggregate=Aggregate.GEOMETRIC_MEDIAN)
    assert learn(robust, lie="turned round", liars=4) > 0.9


@pytest.mark.parametrize(("devices", "right"), [(20, False), (2000, True)])
def test_sums_with_noise_are_solved_and_tell_something_where_devices_are_many(
    devices: int, right: bool
) -> None:
    plan = replace(
        RIDGE,
        aggregate=Aggregate.SUM,
        noise=Noise("4", "1e-5"),
        clip="1.5",
        most_examples=40,
        least_devices=devices,
    )
    sums = [ridge_update([examples(40, seed)], plan).numbers() for seed in range(20)]
    raw = [write_numbers(with_noise(sums[n % 20], plan)) for n in range(devices)]
    found = result_of(plan, raw, None, VALIDATION)
    assert np.isfinite(found.head).all()
    assert (found.figures["right"] > 0.9) is right

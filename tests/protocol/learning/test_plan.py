"""Training plans: what a publisher may ask of devices; what is refused, with the field's name."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from pilotwave_protocol.errors import BadPlan
from pilotwave_protocol.learning.device_plan import DevicePlan
from pilotwave_protocol.learning.plan import (
    MAX_PLAN_BYTES,
    Aggregate,
    Noise,
    TrainingPlan,
    parse_plan,
)
from tests.protocol.learning.plans import RIDGE, SGD


def with_change(plan: TrainingPlan | DevicePlan, path: str, value: object) -> bytes:
    data = json.loads(plan.to_bytes())
    *parents, last = path.split(".")
    place: Any = data
    for key in parents:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = copy.deepcopy(value)
    return json.dumps(data).encode()


NOISY = replace(SGD, aggregate=Aggregate.MEAN, noise=Noise("1", "1e-5"))


@pytest.mark.parametrize("plan", [RIDGE, SGD, NOISY], ids=["ridge", "sgd", "noise"])
def test_a_plan_reads_and_writes_back_the_same(plan: TrainingPlan) -> None:
    assert parse_plan(plan.to_bytes()) == plan
    assert parse_plan(plan.to_bytes()).to_bytes() == plan.to_bytes()


def test_the_size_of_an_update_follows_from_the_plan() -> None:
    assert RIDGE.update_bytes == 4 * (7 * 8 // 2 + 7 * 3)
    assert SGD.update_bytes == SGD.head_bytes == 4 * 7 * 3


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema", "pilotwave/plan/2", "schema: expected pilotwave/plan/1"),
        # a later plan's field would change what a device does without its knowledge
        ("upload_examples", True, "unknown field 'upload_examples'"),
        ("base.sha256", "A" * 64, "base.sha256: sha256: expected 64 hex digits"),
        ("base.more", 1, "base: unknown field"),
        ("plan", "../1", "plan: plan name: expected"),
        ("features", 10**6, "features: expected a whole number from 1 to 1536"),
        ("classes", 1, "classes: expected a whole number from 2"),
        ("classes", 3.0, "classes: expected a whole number"),
        ("method", "median", "method: expected a Method"),
        ("clip", "0", "clip: expected a number from 1e-9"),
        ("clip", "NaN", "clip: expected a number from 1e-9"),
        ("clip", 4, "clip: expected text"),
        # the sum for a class of one example is that example's embedding
        ("least_examples", 19, "least_examples: expected a whole number from 20"),
        ("least_devices", 2, "least_devices: expected a whole number from 3"),
        ("most_examples", 19, "most_examples"),
        ("rounds", 2, "rounds: expected a whole number from 1 to 1"),
        ("deadline", "tomorrow", "deadline: expected a time"),
        # a median of sums that differ by device is worse than an attack
        ("aggregate", "geometric_median", "leave_one_out or sum with ridge"),
        ("validation", None, "validation: expected it with leave_one_out"),
        ("steps", {"epochs": 1, "batch": 1, "rate": "1"}, "steps: expected it with sgd"),
        ("head", {"sha256": "d" * 64, "length": "1"}, "head: expected it with sgd"),
        # who is left out depends on each device's own numbers, not on their sum
        ("noise", {"epsilon": "1", "delta": "1e-5"}, "aggregate: expected sum or mean with noise"),
        ("noise", {"epsilon": "0", "delta": "1e-5"}, "noise.epsilon: expected a number from 0.01"),
        ("noise", {"epsilon": "1", "delta": "0.5"}, "noise.delta: expected a number from 1e-12"),
        ("label_sources", ["the operator"], "label_sources: expected names; label source"),
        ("label_sources", ["sensor", "operator"], "label_sources: expected each name once"),
        ("label_sources", ["a", "a"], "label_sources: expected each name once"),
        ("label_sources", [str(n) for n in range(9)], "a list of at most 8 items"),
        ("label_sources", "operator", "a list of at most 8 items"),
        ("label_sources", [1], "label_sources: expected texts"),
        ("validation.rows", 0, "validation.rows: expected a whole number from 1"),
    ],
)
def test_a_wrong_field_is_named(path: str, value: object, words: str) -> None:
    with pytest.raises(BadPlan) as raised:
        parse_plan(with_change(RIDGE, path, value))
    assert words in str(raised.value)


OPTIONAL = {"steps", "head", "noise", "label_sources"}


@pytest.mark.parametrize("field", sorted(set(json.loads(RIDGE.to_bytes())) - OPTIONAL))
def test_no_field_may_be_missing(field: str) -> None:
    with pytest.raises(BadPlan, match=field):
        parse_plan(with_change(RIDGE, field, ...))


def test_gradient_steps_need_their_size_and_a_head_to_begin_with() -> None:
    for key in ("steps", "head"):
        with pytest.raises(BadPlan, match=f"{key}: expected it with sgd"):
            parse_plan(with_change(SGD, key, None))
    with pytest.raises(BadPlan, match=r"head\.length: expected a number"):
        parse_plan(with_change(SGD, "head.length", "inf"))
    with pytest.raises(BadPlan, match=r"steps\.rate: expected a number"):
        parse_plan(with_change(SGD, "steps.rate", "-1"))
    with pytest.raises(BadPlan, match="with sgd"):
        parse_plan(with_change(SGD, "aggregate", "sum"))


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"schema":"pilotwave/plan/1"}', b" " * (MAX_PLAN_BYTES + 1)]
)
def test_what_is_no_plan_is_refused(raw: bytes) -> None:
    with pytest.raises(BadPlan):
        parse_plan(raw)

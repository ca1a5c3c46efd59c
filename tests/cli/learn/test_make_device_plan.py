"""What `learn plan --scope device` makes of the publisher's own examples."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_cli.errors import CliError
from pilotwave_cli.learn.base_version import Judged
from pilotwave_cli.learn.make_device_plan import make_device_plan
from pilotwave_cli.learn.make_plan import MadePlan
from pilotwave_cli.learn.plan_options import PlanOptions
from pilotwave_cli.optimize.data import Data
from pilotwave_protocol.learning.device_plan import DevicePlan, Kind, parse_device_plan
from pilotwave_protocol.learning.plan import Base
from tests.protocol.learning.field import embedded, scored, seen

NOW = datetime(2026, 11, 30, 9, 0, 0, 5, tzinfo=timezone.utc)


def made(scores: np.ndarray | None = None, **what: Any) -> MadePlan:
    x, y = seen(100, 1, field=False)
    data = Data(Path("own.npz"), "", {"x": x}, y)
    found = Judged(data, y, embedded(x), scored(x) if scores is None else scores, "probs")
    asked = PlanOptions("1.0.0", "onnx-fp32", Path("m.onnx"), "active", data.path, **what)
    return make_device_plan("detector", "here-1", Base("1.0.0", "a" * 64, "v"), asked, found, NOW)


def test_a_plan_says_what_the_version_answers_and_names_no_file() -> None:
    found = made(distance="6")
    plan = found.plan
    assert isinstance(plan, DevicePlan)
    assert parse_device_plan(found.raw) == plan
    assert found.files == ()
    assert (plan.features, plan.classes, plan.scores.output) == (48, 3, "probs")
    assert plan.scores.kind is Kind.PROBABILITIES
    assert (plan.least_examples, plan.most_examples) == (60, 1000)
    assert 0 < float(plan.clip) < 20
    assert plan.deadline == datetime(2027, 2, 28, 9, 0, 0, tzinfo=timezone.utc)


def test_scores_that_are_no_shares_are_taken_for_what_they_are() -> None:
    plan = made(scores=np.random.default_rng(0).normal(size=(100, 3)), distance="6").plan
    assert isinstance(plan, DevicePlan)
    assert plan.scores.kind is Kind.LOGITS


@pytest.mark.parametrize(
    ("what", "words"),
    [({}, "asks for --distance"), ({"distance": "6", "golden": "95"}, "golden: expected")],
)
def test_what_is_missing_or_wrong_is_named(what: dict[str, str], words: str) -> None:
    with pytest.raises(CliError, match=words):
        made(**what)

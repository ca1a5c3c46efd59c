"""A plan made of the publisher's own examples; what noise would leave of it is tried first."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_cli.errors import CliError, Failed
from pilotwave_cli.learn.base_version import Judged
from pilotwave_cli.learn.make_plan import MadePlan, make_plan
from pilotwave_cli.learn.plan_options import PlanOptions
from pilotwave_cli.learn.try_noise import least_devices
from pilotwave_cli.optimize.data import Data
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.plan import Aggregate, Base, Method, parse_plan
from pilotwave_protocol.learning.privacy import OPEN, Mode, Privacy
from pilotwave_protocol.learning.statistics import read_head, scores
from tests.protocol.learning.models import classifier

NOW = datetime(2026, 12, 1, tzinfo=timezone.utc)
HEAD = np.vstack([np.eye(6)[:, ::2] * 9, np.zeros((1, 3))])


@pytest.fixture
def desk(tmp_path: Path) -> tuple[Path, Judged]:
    """A model's file and what it answers to the publisher's examples, of three clear classes."""
    file = tmp_path / "model.onnx"
    file.write_bytes(classifier((np.eye(6), np.zeros(6)), HEAD))
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, 300)
    x = np.abs(np.eye(6)[classes * 2] + random.normal(0, 0.3, (300, 6)))
    data = tmp_path / "own.npz"
    np.savez(data, x=x, labels=classes)
    return file, Judged(Data(data, "", {"x": x}, classes), classes, x, scores(HEAD, x), "probs")


def made(desk: tuple[Path, Judged], **what: Any) -> MadePlan:
    file, found = desk
    asked = PlanOptions("1.0.0", "onnx-fp32", file, "active", found.data.path, **what)
    base = Base("1.0.0", "a" * 64, "onnx-fp32")
    return make_plan("detector", "autumn-1", base, asked, found, NOW)


def test_a_plan_of_one_round_leaves_devices_out(desk: tuple[Path, Judged]) -> None:
    found = made(desk)
    assert (found.plan.method, found.plan.aggregate) == (Method.RIDGE, Aggregate.LEAVE_ONE_OUT)
    assert (found.plan.rounds, found.plan.head, found.plan.noise) == (1, None, None)
    assert [sha256_hex(f) for f in found.files] == [found.plan.validation.sha256]


def test_gradient_steps_begin_with_the_models_own_head_so_that_its_scores_are_chances(
    desk: tuple[Path, Judged],
) -> None:
    found = made(desk, method=Method.SGD, rounds=7)
    plan = found.plan
    assert (plan.aggregate, plan.rounds) == (Aggregate.GEOMETRIC_MEDIAN, 7)
    _, raw = found.files
    assert plan.head is not None
    assert plan.head.sha256 == sha256_hex(raw)
    head = read_head(raw, features=6, classes=3)
    assert float(plan.head.length) == pytest.approx(float(np.linalg.norm(head)), rel=1e-4)
    np.testing.assert_allclose(head / np.linalg.norm(head), HEAD / np.linalg.norm(HEAD), atol=1e-5)
    assert 0.01 < float(plan.clip) < 100
    assert parse_plan(found.raw) == plan


@pytest.mark.parametrize("method", list(Method))
def test_noise_that_leaves_nothing_is_refused_with_the_number_of_devices_that_it_takes(
    desk: tuple[Path, Judged], method: Method
) -> None:
    what: dict[str, Any] = {"method": method, "rounds": 5, "most_examples": 40, "epsilon": "1"}
    with pytest.raises(Failed, match=r"it takes about [\d,]+ \(--least-devices\)") as refused:
        made(desk, **what)
    enough = int(str(refused.value).split("about ")[1].split(" ")[0].replace(",", ""))
    assert 20 < enough < 100_000
    plan = made(desk, **what, least_devices=round(enough * 1.2)).plan
    assert plan.noise is not None
    assert plan.aggregate is (Aggregate.SUM if method is Method.RIDGE else Aggregate.MEAN)
    with pytest.raises(Failed):
        made(desk, **what, least_devices=round(enough / 3))


def test_a_rule_that_no_promise_covers_is_refused(desk: tuple[Path, Judged]) -> None:
    with pytest.raises(Exception, match="aggregate: expected sum or mean with noise"):
        made(desk, epsilon="1", aggregate=Aggregate.LEAVE_ONE_OUT)


def test_the_least_number_of_devices_is_found_to_a_tenth() -> None:
    found = least_devices(lambda devices: float(devices >= 777), 10, 1.0)
    assert found is not None
    assert 777 <= found <= 860
    assert least_devices(lambda devices: 0.0, 10, 1.0) is None


def test_plans_differ_where_what_was_asked_does(desk: tuple[Path, Judged]) -> None:
    one = made(desk).plan
    assert made(desk, least_devices=4).plan == replace(one, least_devices=4)


def test_a_plan_names_where_labels_come_from(desk: tuple[Path, Judged]) -> None:
    assert made(desk).plan.label_sources == ()
    found = made(desk, label_source=["sensor", "operator", "sensor"])
    assert found.plan.label_sources == ("operator", "sensor")
    assert parse_plan(found.raw) == found.plan
    with pytest.raises(CliError, match="label source: expected small letters"):
        made(desk, label_source=["the operator"])


def test_masks_are_asked_for_and_numbers_that_are_too_large_for_them_refused(
    desk: tuple[Path, Judged],
) -> None:
    assert made(desk, group_size=6).plan.privacy == OPEN
    assert made(desk, masked=True, group_size=6).plan.privacy == Privacy(Mode.MASKED, 6)
    with pytest.raises(CliError, match="too large to be masked"):
        made(desk, masked=True, clip="1e8")

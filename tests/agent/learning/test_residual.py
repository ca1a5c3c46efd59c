"""Fitting what a device adds to a version's scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pilotwave_agent.learning.residual import fit
from pilotwave_protocol.learning.device_plan import Kind, Scores
from pilotwave_protocol.learning.gradient import clipped
from pilotwave_protocol.learning.overlaid import overlaid
from pilotwave_protocol.learning.statistics import with_ones
from tests.protocol.learning.field import embedded, scored, seen
from tests.protocol.learning.plans import DEVICE


def right(head: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    found = overlaid(head, scored(x), embedded(x), clip=float(DEVICE.clip), kind=Kind.PROBABILITIES)
    return float((found.argmax(axis=1) == y).mean())


def fitted(rows: int, **changes: str) -> np.ndarray:
    x, y = seen(rows, 2)
    return fit(embedded(x), scored(x), y, replace(DEVICE, **changes))


def test_sixty_labels_make_the_device_right_and_keep_the_factory() -> None:
    head = fitted(60)
    x, y = seen(500, 3)
    assert (scored(x).argmax(axis=1) == y).mean() < 0.6
    assert right(head, x, y) > 0.95
    assert right(head, *seen(500, 4, field=False)) > 0.85


def test_it_is_never_longer_than_the_plan_allows() -> None:
    short = fitted(60, distance="0.5")
    assert np.linalg.norm(short) == pytest.approx(0.5)
    assert np.linalg.norm(fitted(60, penalty="1000")) < 0.2


def test_the_same_examples_give_the_same_numbers() -> None:
    assert fitted(60).tobytes() == fitted(60).tobytes()


def test_it_is_the_minimum_that_it_says() -> None:
    """No step from it, in any direction, makes the penalised likelihood better."""
    x, y = seen(80, 5)
    plan = replace(DEVICE, distance="1e6")
    head = fit(embedded(x), scored(x), y, plan)
    rows = with_ones(clipped(embedded(x), float(plan.clip)))

    def loss(d: np.ndarray) -> float:
        z = np.log(scored(x)) + rows @ d
        top = z.max(axis=1, keepdims=True)
        logs = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
        return float(-logs[np.arange(len(y)), y].sum() + (d * d).sum() / 2)

    random = np.random.default_rng(0)
    for _ in range(50):
        step = random.normal(size=head.shape) * 0.05
        assert loss(head + step) > loss(head)


def test_scores_before_a_softmax_are_fitted_as_well() -> None:
    x, y = seen(60, 2)
    plan = replace(DEVICE, scores=Scores("logits", Kind.LOGITS))
    head = fit(embedded(x), np.log(scored(x)), y, plan)
    np.testing.assert_allclose(head, fitted(60), atol=1e-6)


def test_more_features_than_examples_are_no_trouble() -> None:
    random = np.random.default_rng(0)
    plan = replace(DEVICE, features=1280)
    head = fit(
        random.normal(size=(60, 1280)), scored(seen(60, 2)[0]), random.integers(0, 3, 60), plan
    )
    assert head.shape == (1281, 3)
    assert np.isfinite(head).all()

"""What a device computes from labelled examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pilotwave_agent.learning.compute import ridge_update, sgd_update
from pilotwave_protocol.learning.statistics import with_ones
from tests.protocol.learning.plans import RIDGE, SGD


def examples(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, rows)
    return np.eye(6)[classes * 2] * 2 + random.normal(0, 0.3, (rows, 6)), classes


def test_sums_are_those_of_all_batches() -> None:
    x, y = examples(70)
    found = ridge_update([(x[:30], y[:30]), (x[30:], y[30:])], replace(RIDGE, clip="1e9"))
    rows = with_ones(x)
    np.testing.assert_allclose(found.gram, rows.T @ rows)
    np.testing.assert_allclose(found.cross, rows.T @ np.eye(3)[y])


def test_a_long_embedding_counts_as_one_of_the_longest_that_the_plan_allows() -> None:
    x, y = examples(40)
    x[0] *= 1000
    found = ridge_update([(x, y)], RIDGE)
    assert np.trace(found.gram) <= 40 * (16 + 1) + 1e-9


def test_no_more_examples_count_than_the_plan_allows() -> None:
    x, y = examples(70)
    asked = []

    def batches():
        for start in range(0, 70, 10):
            asked.append(start)
            yield x[start : start + 10], y[start : start + 10]

    assert sgd_update(np.zeros((7, 3)), batches(), replace(SGD, most_examples=25))[1] == 25
    asked.clear()
    found = ridge_update(batches(), replace(RIDGE, most_examples=25))
    assert found.examples == 25
    assert found.cross[-1].tolist() == np.bincount(y[:25], minlength=3).tolist()
    assert asked == [0, 10, 20]


def test_gradient_steps_learn_and_are_held_to_the_plans_length() -> None:
    x, y = examples(60)
    plan = replace(SGD, clip="100")
    head = np.zeros((7, 3))
    for turn in range(20):
        change, count = sgd_update(head, [(x[:35], y[:35]), (x[35:], y[35:])], plan, seed=turn)
        head += change
        assert count == 60
    assert ((with_ones(x) @ head).argmax(axis=1) == y).mean() > 0.95
    short, _ = sgd_update(np.zeros((7, 3)), [(x, y)], replace(SGD, clip="0.01"), seed=0)
    assert np.linalg.norm(short) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.ones((2, 5)), np.array([0, 1]), r"expected embeddings \[n, 6\]"),
        (np.ones((2, 6)), np.array([0]), "2, 6"),
        (np.ones((2, 6)), np.array([0, 3]), "classes from 0 to 2"),
        (np.ones((2, 6)), np.array([-1, 0]), "classes from 0 to 2"),
        (np.full((2, 6), np.nan), np.array([0, 1]), "finite"),
    ],
)
def test_examples_of_another_shape_are_refused(x: np.ndarray, y: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ridge_update([(x, y)], RIDGE)
    with pytest.raises(ValueError, match=words):
        sgd_update(np.zeros((7, 3)), [(x, y)], SGD, seed=0)

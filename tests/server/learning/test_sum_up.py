"""Sums of many devices, and which of them are left out."""

from __future__ import annotations

import numpy as np
import pytest

from pilotwave_agent.learning.compute import ridge_update
from pilotwave_protocol.learning.statistics import Statistics
from pilotwave_server.learning.sum_up import Validation, leave_one_out, sum_all
from tests.protocol.learning.plans import RIDGE


def examples(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes with an overlap."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, rows)
    return np.eye(6)[classes * 2] + random.normal(0, 0.4, (rows, 6)), classes


VALIDATION = Validation(*examples(300, 999))


def device(seed: int, *, lies: bool = False, rows: int = 40) -> Statistics:
    x, y = examples(rows, seed)
    return ridge_update([(x, (y + 1) % 3 if lies else y)], RIDGE)


def test_without_liars_all_are_kept_and_the_publishers_own_examples_count_too() -> None:
    devices = [device(seed) for seed in range(12)]
    found = leave_one_out(devices, 1.0, VALIDATION)
    assert found.left_out == ()
    np.testing.assert_allclose(
        found.head, sum_all([*devices, VALIDATION.sums(3)], 1.0).head, atol=1e-9
    )


def test_what_only_a_liar_has_seen_is_known_from_the_publishers_own_examples() -> None:
    x, y = examples(600, 5)
    known = y < 2  # honest devices have two of the three classes
    honest = [ridge_update([(x[known][n::10], y[known][n::10])], RIDGE) for n in range(10)]
    found = leave_one_out([*honest, device(9, lies=True, rows=200)], 1.0, VALIDATION)
    assert [out.place for out in found.left_out] == [10]
    absent = VALIDATION.share_right(sum_all(honest, 1.0).head)
    assert found.right is not None
    assert found.right > absent + 0.05


def test_examples_are_judged_by_a_head_that_has_not_seen_them() -> None:
    random = np.random.default_rng(4)
    noise = Validation(random.normal(size=(60, 6)) * 3, random.integers(0, 3, 60))
    found = leave_one_out([device(seed, rows=20) for seed in range(3)], 1e-6, noise)
    assert found.right is not None
    assert found.right < 0.5


@pytest.mark.parametrize("liars", [1, 4])
def test_liars_are_found_even_where_they_agree(liars: int) -> None:
    # they claim as much as they may: 100 examples each where others have 40
    devices = [device(seed) for seed in range(12)]
    bad = [device(100 + seed, lies=True, rows=200) for seed in range(liars)]
    good = VALIDATION.share_right(sum_all(devices, 1.0).head)
    found = leave_one_out(devices + bad, 1.0, VALIDATION)
    assert VALIDATION.share_right(found.head) > good - 0.02
    if liars == 4:
        assert VALIDATION.share_right(sum_all(devices + bad, 1.0).head) < good - 0.1
        assert {out.place for out in found.left_out} <= set(range(12, 16))


def test_at_most_half_are_left_out() -> None:
    devices = [device(seed, lies=True) for seed in range(9)] + [device(50)]
    assert len(leave_one_out(devices, 1.0, VALIDATION).left_out) <= 5


def test_a_liar_is_found_wherever_it_is_among_many() -> None:
    own = Validation(*examples(4000, 998))  # so many that heads are tried in several blocks
    devices = [device(seed, rows=20) for seed in range(400)]
    for place in (0, 200, 399):
        several = list(devices)
        several[place] = device(7, lies=True, rows=1000)
        found = leave_one_out(several, 1.0, own, gain=0.001)
        assert [out.place for out in found.left_out] == [place]

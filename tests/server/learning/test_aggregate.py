"""Each rule on changes whose honest mean is known, without and with bad devices."""

from __future__ import annotations

import numpy as np
import pytest

from pilotwave_protocol.learning.plan import AGGREGATES, Method
from pilotwave_server.learning.aggregate import (
    OF_CHANGES,
    clipped_mean,
    geometric_median,
    mean,
    multi_krum,
)

RIGHT = np.array([1.0, -2.0, 0.5, 3.0])


def changes(count: int = 20) -> np.ndarray:
    return RIGHT + np.random.default_rng(1).normal(0, 0.2, (count, 4))


def far(found: np.ndarray) -> float:
    return float(np.linalg.norm(found - RIGHT))


def test_there_is_a_rule_for_each_aggregate_of_changes() -> None:
    assert set(OF_CHANGES) == set(AGGREGATES[Method.SGD])


@pytest.mark.parametrize("rule", OF_CHANGES.values(), ids=lambda rule: rule.__name__)
def test_without_bad_devices_each_is_near_the_mean(rule) -> None:
    assert far(rule(changes())) < 0.2


@pytest.mark.parametrize("bad", [1, 4])
@pytest.mark.parametrize("lie", [-10 * RIGHT, 1e6 * np.ones(4)], ids=["turned round", "huge"])
def test_bad_devices_carry_the_mean_away_and_the_robust_rules_not(bad: int, lie) -> None:
    some = changes()
    some[:bad] = lie
    assert far(mean(some)) > 1.5
    assert far(geometric_median(some)) < 0.2
    assert far(multi_krum(some)) < 0.2
    assert far(clipped_mean(some)) < (0.6 if bad == 1 else 2.0)


def test_the_geometric_median_is_the_point_with_the_least_sum_of_distances() -> None:
    some = np.random.default_rng(3).normal(size=(15, 4))
    found = geometric_median(some)

    def distance(point):
        return np.linalg.norm(some - point, axis=1).sum()

    for step in np.vstack([np.eye(4), -np.eye(4)]) * 1e-2:
        assert distance(found) < distance(found + step)


def test_devices_that_agree_exactly_are_their_own_median() -> None:
    same = np.tile(RIGHT, (7, 1))
    np.testing.assert_allclose(geometric_median(same), RIGHT)
    np.testing.assert_allclose(multi_krum(same), RIGHT)


def test_krum_of_too_few_devices_is_the_geometric_median() -> None:
    few = changes(4)
    np.testing.assert_allclose(multi_krum(few), geometric_median(few))


def test_krum_in_blocks_is_krum() -> None:
    some = changes(600)
    some[:100] = -RIGHT
    apart = ((some[:, None] - some[None]) ** 2).sum(axis=2)
    sums = np.sort(apart, axis=1)[:, : 600 - 120 - 1].sum(axis=1)
    plain = some[np.sort(np.argsort(sums, kind="stable")[:480])].mean(axis=0)
    np.testing.assert_allclose(multi_krum(some), plain, rtol=1e-9)

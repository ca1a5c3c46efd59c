"""Privacy noise: its size follows from what a device can add, and what is drawn is what is said."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pilotwave_agent.learning.compute import ridge_update
from pilotwave_protocol.learning import noise
from pilotwave_protocol.learning.plan import Aggregate, Noise, TrainingPlan
from tests.protocol.learning.plans import RIDGE, SGD

PROMISE = Noise("1", "1e-5")
RIDGE_NOISY = replace(RIDGE, aggregate=Aggregate.SUM, noise=PROMISE, most_examples=40)
SGD_NOISY = replace(SGD, aggregate=Aggregate.MEAN, noise=PROMISE, clip="2", rounds=9)


def total(plan: TrainingPlan) -> float:
    """The standard deviation of the noise of `least_devices`."""
    return noise.share(plan) * math.sqrt(plan.least_devices)


@pytest.mark.parametrize("epsilon", ["0.1", "1", "10"])
def test_the_noise_keeps_the_promise_and_no_more(epsilon: str) -> None:
    """By the definition: what the two Gaussians, with and without a device, differ by beyond
    e^epsilon is delta, summed up on a fine grid."""
    plan = replace(SGD_NOISY, clip="1", rounds=1, noise=Noise(epsilon, "1e-5"))
    size, step = total(plan), total(plan) / 2000
    x = np.arange(-12 * size, 12 * size, step)
    without, with_it = (np.exp(-((x - m) ** 2) / (2 * size**2)) for m in (0, 1))
    beyond = np.maximum(without - math.exp(float(epsilon)) * with_it, 0)
    assert beyond.sum() * step / (size * math.sqrt(2 * math.pi)) == pytest.approx(1e-5, rel=0.02)


def test_a_weaker_promise_takes_less_noise_and_more_rounds_take_more() -> None:
    weak = replace(SGD_NOISY, noise=Noise("2", "1e-5"))
    assert total(weak) < total(SGD_NOISY)
    once = replace(SGD_NOISY, rounds=1)
    assert total(SGD_NOISY) == pytest.approx(3 * total(once))
    assert noise.share(SGD) == 0


@pytest.mark.parametrize("seed", range(5))
def test_no_device_adds_more_than_the_noise_is_made_for(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = random.normal(size=(60, 6)) * 100
    x[:, seed:] = 0  # all of it in one direction is the longest
    x[0] = 0
    found = ridge_update([(x, np.zeros(60, int))], RIDGE_NOISY)
    assert np.linalg.norm(found.numbers()) <= noise.sensitivity(RIDGE_NOISY) * (1 + 1e-9)
    most = ridge_update([(np.tile(np.eye(6)[:1] * 100, (60, 1)), np.zeros(60, int))], RIDGE_NOISY)
    assert np.linalg.norm(most.numbers()) > 0.9 * noise.sensitivity(RIDGE_NOISY)


def test_what_is_drawn_is_gaussian_and_never_the_same() -> None:
    drawn = noise.gaussians(200_000)
    assert abs(drawn.mean()) < 0.02
    assert abs(drawn.std() - 1) < 0.02
    for z in (-2, -1, 0, 1, 2):
        share = math.erfc(-z / math.sqrt(2)) / 2
        assert abs((drawn < z).mean() - share) < 0.01
    assert not (noise.gaussians(10) == noise.gaussians(10)).any()


def test_the_noise_of_all_devices_adds_up_to_what_was_promised() -> None:
    share = noise.share(SGD_NOISY)
    of_all = sum(share * noise.gaussians(5000) for _ in range(SGD_NOISY.least_devices))
    assert np.std(of_all) == pytest.approx(total(SGD_NOISY), rel=0.1)


def test_an_honest_device_is_within_the_room_for_its_noise_and_ten_times_as_much_is_not() -> None:
    numbers = SGD_NOISY.update_bytes // 4
    most = noise.longest(SGD_NOISY, 2.0, numbers)
    for _ in range(200):
        honest = np.linalg.norm(noise.share(SGD_NOISY) * noise.gaussians(numbers)) + 2
        assert honest < most
    assert 10 * honest > most


def test_sums_with_noise_can_be_solved_with_what_is_added_to_the_penalty() -> None:
    devices = 50
    size = noise.share(RIDGE_NOISY) * math.sqrt(devices)
    upper = np.triu(np.random.default_rng(1).normal(0, size, (7, 7)))
    alone = upper + np.triu(upper, 1).T
    assert np.linalg.eigvalsh(alone).min() < 0
    assert np.linalg.eigvalsh(alone + noise.ridge(RIDGE_NOISY, devices) * np.eye(7)).min() > 0

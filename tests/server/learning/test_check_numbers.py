"""Numbers that no examples give are refused; what passes counts for no more than was allowed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pilotwave_agent.learning.compute import ridge_update, with_noise
from pilotwave_protocol.learning.plan import Aggregate, Noise
from pilotwave_protocol.learning.statistics import Statistics, write_numbers
from pilotwave_server.learning.check_numbers import ImpossibleUpdate, check_change, check_sums
from tests.protocol.learning.plans import RIDGE, SGD


def honest(rows: int = 40, scale: float = 1.0) -> Statistics:
    random = np.random.default_rng(rows)
    x, y = random.normal(size=(rows, 6)) * scale, random.integers(0, 3, rows)
    sent = ridge_update([(x, y)], RIDGE).to_bytes()
    return Statistics.from_bytes(sent, features=6, classes=3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("rows", [20, 999, 1000])
def test_what_an_honest_device_sends_passes(rows: int, scale: float) -> None:
    check_sums(honest(rows, scale), RIDGE, examples=rows)


def test_all_examples_alike_pass_too() -> None:
    same = ridge_update([(np.ones((30, 6)), np.zeros(30, int))], RIDGE)
    check_sums(Statistics.from_bytes(same.to_bytes(), features=6, classes=3), RIDGE, examples=30)


def changed(gram=lambda a: a, cross=lambda b: b) -> Statistics:
    found = honest()
    return Statistics(gram(found.gram.copy()), cross(found.cross.copy()))


def put(place, value):
    def put_into(array):
        array[place] = value
        return array

    return put_into


@pytest.mark.parametrize(
    ("sums", "words"),
    [
        # ten times the other way round: what ruins a sum without this check
        (changed(cross=lambda b: -10 * b), "40 examples"),
        (changed(cross=lambda b: np.vstack([-10 * b[:-1], b[-1:]])), "positive semidefinite"),
        (changed(cross=lambda b: np.vstack([3 * b[:-1], b[-1:]])), "positive semidefinite"),
        (changed(gram=lambda a: np.block([[-a[:-1, :-1], a[:-1, -1:]], [a[-1:]]])), "semidefinite"),
        (changed(gram=put((0, 0), 1e6)), "trace of at most 680"),
        (changed(gram=put((-1, -1), 4000.0)), "40 examples; they are of 4000"),
        (changed(cross=put((-1, 0), 4000.0)), "by their classes"),
        (changed(gram=lambda a: 0 * a), "they are of 0"),
    ],
    ids=["turned", "turned but for the counts", "tripled", "negative", "long", "many", "classes",
         "nothing"],
)  # fmt: skip
def test_sums_of_no_examples_are_refused(sums: Statistics, words: str) -> None:
    with pytest.raises(ImpossibleUpdate, match=words):
        check_sums(sums, RIDGE, examples=40)


@pytest.mark.parametrize("examples", [19, 1001])
def test_too_few_or_too_many_examples_are_refused(examples: int) -> None:
    with pytest.raises(ImpossibleUpdate, match="expected 20 to 1000 examples"):
        check_sums(honest(), RIDGE, examples=examples)
    with pytest.raises(ImpossibleUpdate, match="expected 20 to 1000 examples"):
        check_change(np.zeros((7, 3)), SGD, examples=examples)


def test_a_change_that_is_too_long_is_refused() -> None:
    short = replace(SGD, clip="2")
    check_change(np.full((4, 1), 1.0), short, examples=40)
    with pytest.raises(ImpossibleUpdate, match="norm of at most 2; got 4"):
        check_change(np.full((4, 1), 2.0), short, examples=40)


NOISY = replace(RIDGE, aggregate=Aggregate.SUM, noise=Noise("1", "1e-5"), most_examples=40)


def test_sums_with_an_honest_devices_noise_pass() -> None:
    for _ in range(20):
        raw = write_numbers(with_noise(honest().numbers(), NOISY))
        check_sums(Statistics.from_bytes(raw, features=6, classes=3), NOISY, examples=40)


def test_sums_that_are_longer_than_noise_makes_them_are_refused() -> None:
    raw = write_numbers(with_noise(honest().numbers(), NOISY) * 4)
    with pytest.raises(ImpossibleUpdate, match="numbers with a norm of at most"):
        check_sums(Statistics.from_bytes(raw, features=6, classes=3), NOISY, examples=40)


def test_a_change_has_room_for_its_noise_and_no_more() -> None:
    plan = replace(
        SGD, aggregate=Aggregate.MEAN, noise=Noise("1", "1e-5"), clip="0.5", least_devices=1000
    )
    change = with_noise(np.full(21, 0.1), plan)
    check_change(change, plan, examples=40)
    with pytest.raises(ImpossibleUpdate, match="numbers with a norm of at most"):
        check_change(change * 20, plan, examples=40)

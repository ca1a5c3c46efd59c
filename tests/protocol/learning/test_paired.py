"""What few labels show of two ways to answer, and what they cannot."""

from __future__ import annotations

import math

import pytest

from pilotwave_protocol.learning.paired import (
    DOUBT,
    chance_of_worse,
    doubt_of_try,
    is_worse,
    least_gain,
    shown,
)


@pytest.mark.parametrize(
    ("better", "worse", "rows", "gain"),
    [
        (0, 0, 0, -1.0),  # no label, nothing known
        (3, 0, 3, -0.263),  # three of three may be luck
        (5, 0, 20, -0.035),
        (12, 0, 20, 0.254),
        (12, 6, 20, -0.114),
        (60, 5, 100, 0.411),
    ],
)
def test_the_gain_that_labels_show(better: int, worse: int, rows: int, gain: float) -> None:
    assert least_gain(better, worse, rows, doubt=0.1) == pytest.approx(gain, abs=0.001)


def test_what_is_no_better_passes_at_most_as_often_as_the_doubt_says() -> None:
    passed = 0.0
    for better in range(31):  # of 30, each way is better on a quarter
        for worse in range(31 - better):
            if least_gain(better, worse, 30, doubt=DOUBT) > 0:
                ways = math.comb(30, better) * math.comb(30 - better, worse)
                passed += ways * 0.25 ** (better + worse) * 0.5 ** (30 - better - worse)
    assert 0 < passed <= DOUBT


def test_trying_again_and_again_spends_no_more_than_the_doubt() -> None:
    assert sum(doubt_of_try(n) for n in range(1, 10_000)) <= DOUBT
    assert doubt_of_try(2) < doubt_of_try(1)


@pytest.mark.parametrize(
    ("better", "worse", "says"),
    [(0, 6, False), (0, 7, True), (1, 10, True), (3, 3, False), (7, 0, False), (0, 0, False)],
)
def test_a_few_labels_show_that_it_is_worse(better: int, worse: int, says: bool) -> None:
    assert is_worse(better, worse) is says


def test_the_test_is_mcnemars_exact_one() -> None:
    # 0 of 5 by a fair coin: 1/32; 1 or fewer of 9: 10/512
    assert chance_of_worse(0, 5) == pytest.approx(1 / 32)
    assert chance_of_worse(1, 8) == pytest.approx(10 / 512)


def test_a_share_is_never_shown_larger_than_it_is() -> None:
    assert (shown(0.1999), shown(-0.0001)) == ("0.199", "-0.001")

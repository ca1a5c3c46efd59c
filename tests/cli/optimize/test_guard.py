"""The guard: exact bounds, and what they say of a variant."""

from __future__ import annotations

import numpy as np
import pytest

from pilotwave_cli.optimize.guard import CONFIDENCE, enough, judge, percent
from pilotwave_protocol.shares import upper_bound


# the first four are the tables' (k = 0: 1 - 0.05 ** (1 / n)), the others scipy's
# beta.ppf(0.95, k + 1, n - k)
@pytest.mark.parametrize(
    ("wrong", "rows", "bound"),
    [
        (0, 200, 0.0148671),
        (0, 500, 0.0059736),
        (0, 1500, 0.0019952),
        (0, 299, 0.0099689),
        (5, 500, 0.0209103),
        (1, 10, 0.3941633),
        (50, 100, 0.5863783),
        (99, 100, 0.9994872),
        (100, 100, 1.0),
        (300, 100_000, 0.0033007),
    ],
)
def test_bound_is_the_exact_one(wrong: int, rows: int, bound: float) -> None:
    assert upper_bound(wrong, rows, CONFIDENCE) == pytest.approx(bound, rel=1e-4)


def test_bound_holds_as_often_as_it_promises() -> None:
    """Of 4,000 draws with a true loss of 2 %, the bound lies below it in 5 % at most."""
    draws = np.random.default_rng(3).binomial(400, 0.02, size=4000)
    bounds = {k: upper_bound(int(k), 400, CONFIDENCE) for k in set(draws)}
    missed = np.mean([bounds[k] < 0.02 for k in draws])
    assert missed <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)


def test_enough_is_the_least_number_that_does() -> None:
    assert enough(0, 0.01) == 299
    assert upper_bound(0, 298, CONFIDENCE) > 0.01
    more = enough(0.005, 0.01)
    assert more is not None
    assert upper_bound(int(0.005 * more), more, CONFIDENCE) <= 0.01
    assert enough(0.01, 0.01) is None


LABELS = np.arange(1000) % 10


def answers(wrong: int) -> np.ndarray:
    found = LABELS.copy()
    found[:wrong] += 1
    return found


def test_only_what_was_right_before_counts() -> None:
    judged = judge(answers(100), answers(100), LABELS, 0.01)
    assert judged.accepted
    assert judged.worse == 0
    assert judged.top1 == 0.9
    assert judged.agreement == 1


def test_an_improvement_does_not_hide_what_got_worse() -> None:
    """The accuracies are equal; a tenth of the inputs are answered worse."""
    variant = answers(0)
    variant[900:] += 1
    judged = judge(answers(100), variant, LABELS, 0.05)
    assert judged.top1 == 0.9
    assert judged.worse == 100
    assert not judged.accepted


def test_refusal_has_its_numbers_and_what_would_do() -> None:
    judged = judge(LABELS, answers(5), LABELS, 0.01)
    assert judged.why == (
        "5 of 1000 inputs are wrong and were right before, which shows a loss of up to 1.1%; "
        f"at most 1% is allowed; with {enough(0.005, 0.01)} inputs and this share it would pass"
    )
    hopeless = judge(LABELS, answers(20), LABELS, 0.01)
    assert hopeless.why.endswith("at most 1% is allowed")


def test_without_labels_each_disagreement_counts() -> None:
    judged = judge(answers(100), LABELS, None, 0.01)
    assert judged.top1 is None
    assert judged.worse == 100
    assert "answered otherwise" in judged.why


def test_rounding_never_flatters() -> None:
    assert percent(0.01) == "1%"
    assert percent(0.010001) == "1.1%"

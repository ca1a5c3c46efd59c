"""Numbers modulo a power of two: sums over a group are exact, and have room."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint
from tests.protocol.learning.masked.group import plan_for


@pytest.mark.parametrize(
    ("clip", "examples", "bits", "fraction"),
    [("1", 100, 32, 21), ("4", 200, 64, 32), ("300", 1000, 64, 32), ("3e4", 1000, 64, 20)],
)
def test_width_and_fraction_follow_from_the_plan(clip, examples, bits, fraction) -> None:
    form = FixedPoint.of(replace(plan_for(8), clip=clip, most_examples=examples))
    assert (form.bits, form.fraction) == (bits, fraction)
    # the largest sums of a whole group still have their sign
    for sign in (1, -1):
        one = form.encode(np.full(form.count, sign * form.most))
        total = sum([one] * 7, one)
        found = form.decode(total)
        np.testing.assert_allclose(found, 8 * sign * form.most, rtol=1e-6)


def test_what_is_larger_than_the_plan_allows_or_no_number_is_refused() -> None:
    form = FixedPoint.of(plan_for(4))
    for wrong in (form.most * 1.01, float("nan"), float("inf")):
        numbers = np.zeros(form.count)
        numbers[3] = wrong
        with pytest.raises(BadMessage, match="numbers of at most"):
            form.encode(numbers)
    with pytest.raises(BadMessage, match="bytes of masked numbers"):
        form.read(bytes(form.size - 1))
    with pytest.raises(BadMessage, match="too large to be masked"):
        FixedPoint.of(replace(plan_for(8), clip="1e9"))

"""What a head must pass before a device uses it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pilotwave_agent.learning.judge import HeadFigures, Pairs, faults
from tests.protocol.learning.plans import DEVICE

GOOD = HeadFigures(
    examples=40,
    held_out=Pairs(better=14, worse=0, rows=20),
    beside_last=Pairs(better=2, worse=1, rows=20),
    golden=36,
    golden_rows=40,
    finite=True,
    distance=3.0,
    p95_ms=2.0,
)


def test_a_good_one_passes() -> None:
    assert not list(faults(GOOD, DEVICE, tries=1, max_ms=5))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finite": False}, "not finite"),
        ({"distance": 6.1}, "the plan allows 6"),
        ({"distance": float("nan")}, "the plan allows 6"),
        ({"golden": 31}, "31 of 40 golden cases keep their class"),
        ({"golden": 0, "golden_rows": 0}, "no golden case"),
        ({"p95_ms": 5.1}, "at most 5 ms"),
        # as good on four labels as one can be: four labels show nothing
        ({"held_out": Pairs(4, 0, 4)}, "show a gain of -0.332"),
        ({"held_out": Pairs(14, 6, 20)}, "14 better and 6 worse of 20"),
        ({"held_out": Pairs(0, 0, 20)}, "gain"),
        ({"held_out": Pairs()}, "gain"),
        ({"beside_last": Pairs(1, 2, 20)}, "the overlay in use has more"),
    ],
)
def test_what_fails_says_why(changes: dict[str, object], words: str) -> None:
    (said,) = faults(replace(GOOD, **changes), DEVICE, tries=1, max_ms=5)
    assert words in said


def test_the_same_labels_show_less_at_a_later_try() -> None:
    close = replace(GOOD, held_out=Pairs(11, 0, 20))
    assert not list(faults(close, DEVICE, tries=1, max_ms=None))
    assert list(faults(close, DEVICE, tries=5, max_ms=None))

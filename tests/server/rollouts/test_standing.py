"""Which of a group's baselines count, of all that it was ever told to run."""

from __future__ import annotations

import pytest

from pilotwave_server.rollouts.assignments.fallbacks import Barred, standing
from pilotwave_server.rollouts.assignments.snapshot import Baseline

NEWEST_FIRST = tuple(Baseline(1, "cams", "m", f"1.{n}", n) for n in (3, 2, 1, 0))
ALL = {("m", f"1.{n}"): ["onnx"] for n in range(4)}


@pytest.mark.parametrize(
    ("offered", "barred", "depth", "expected"),
    [
        (ALL, (), 1, ["1.3"]),
        (ALL, (), 2, ["1.3", "1.2"]),
        # what may not be offered is passed over, so another one counts
        ({**ALL, ("m", "1.3"): None}, (), 1, ["1.2"]),
        (ALL, [(1, "m", "1.3")], 1, ["1.2"]),
        (ALL, [(None, "m", "1.3")], 2, ["1.2", "1.1"]),
        # another group's quarantine is none of its business
        (ALL, [(2, "m", "1.3")], 1, ["1.3"]),
        # boards that open only TFLite have nothing newer than 1.1
        ({**ALL, ("m", "1.1"): ["onnx", "tflite"]}, (), 1, ["1.3", "1.1"]),
        ({}, (), 2, []),
    ],
)
def test_the_newest_that_may_be_offered_count(
    offered: dict[tuple[str, str], list[str] | None],
    barred: tuple[Barred, ...],
    depth: int,
    expected: list[str],
) -> None:
    given = {key: names for key, names in offered.items() if names is not None}
    found = standing(NEWEST_FIRST, given, barred=barred, depth=depth)
    assert [b.version for b in found] == expected


def test_each_group_and_model_has_its_own() -> None:
    others = (Baseline(2, "dogs", "m", "1.0", 9), Baseline(1, "cams", "n", "1.0", 8))
    offered = {**ALL, ("n", "1.0"): ["onnx"]}
    found = standing((*others, *NEWEST_FIRST), offered, depth=1)
    assert [(b.group, b.model, b.version) for b in found] == [
        ("dogs", "m", "1.0"),
        ("cams", "n", "1.0"),
        ("cams", "m", "1.3"),
    ]


def test_a_version_that_was_told_twice_counts_once() -> None:
    again = (Baseline(1, "cams", "m", "1.2", 9), *NEWEST_FIRST)
    found = standing(again, ALL, depth=2)
    assert [b.version for b in found] == ["1.2", "1.3"]

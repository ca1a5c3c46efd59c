"""Comparers: each as its name says, on answers that are odd as well as on those that are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pilotwave_agent.live.compare import Compared, compare, nonfinite


def pair(serving: Any, candidate: Any, **how: Any) -> Compared:
    return compare({"y": np.asarray(serving)}, {"y": np.asarray(candidate)}, **how)


ROWS = [
    # a table of scores is compared by its largest entry
    ([[0.1, 0.9]], [[0.4, 0.6]], {}, True),
    ([[0.1, 0.9]], [[0.6, 0.4]], {}, False),
    # of a batch, no row may differ; of a map of pixels, as many as the tolerance says
    ([[0.1, 0.9], [0.9, 0.1]], [[0.1, 0.9], [0.1, 0.9]], {}, False),
    ([[0.1, 0.9], [0.9, 0.1]], [[0.1, 0.9], [0.1, 0.9]], {"tolerance": 0.5}, True),
    # what is no table is compared by its size
    ([1.0], [1.005], {}, True),
    ([1.0], [1.05], {}, False),
    ([1.0], [1.05], {"tolerance": 0.1}, True),
    ([0.0], [0.0], {}, True),
    (["cat"], ["cat"], {}, True),
    (["cat"], ["dog"], {}, False),
    # a direction, whatever its length
    ([1.0, 2.0], [10.0, 20.0], {"by": "cosine"}, True),
    ([1.0, 2.0], [-1.0, -2.0], {"by": "cosine"}, False),
    ([0.0, 0.0], [0.0, 0.0], {"by": "cosine"}, True),
    # masks, then boxes in another order
    ([1, 1, 0, 0], [1, 1, 1, 0], {"by": "iou"}, True),
    ([1, 1, 0, 0], [0, 0, 1, 1], {"by": "iou"}, False),
    ([[0, 0, 2, 2.0], [4, 4, 6, 6]], [[4, 4, 6, 6.0], [0, 0, 2, 2]], {"by": "iou"}, True),
    ([[0, 0, 2, 2.0], [4, 4, 6, 6]], [[4, 4, 6, 6.0]], {"by": "iou", "tolerance": 0.4}, False),
    # a box that nobody believes in is none
    ([[0, 0, 2, 2, 0.9]], [[0, 0, 2, 2, 0.8], [5, 5, 9, 9, 0.1]], {"by": "iou"}, True),
    # nothing found by either
    (np.zeros((0, 5)), np.zeros((0, 5)), {"by": "iou"}, True),
    # odd answers of a candidate disagree
    ([[0.1, 0.9]], [[0.1, 0.9, 0.0]], {}, False),
    ([[0.1, 0.9]], [[float("nan"), 0.9]], {}, False),
    ([1.0], [float("inf")], {}, False),
    ([1.0, 2.0], [float("nan"), 2.0], {"by": "cosine"}, False),
    ([[0, 0, 2, 2.0]], [[0, 0, float("nan"), 2.0]], {"by": "iou"}, False),
    ([[0, 0, 2, 2.0]], [7.0], {"by": "iou"}, False),
    ([1.0], ["cat"], {}, False),
]


@pytest.mark.parametrize(("serving", "candidate", "how", "agrees"), ROWS)
def test_a_pair_agrees_or_not(serving: Any, candidate: Any, how: Any, agrees: bool) -> None:
    found = pair(serving, candidate, **how)
    assert found.agrees is agrees
    for number in (found.distance, found.score, found.candidate_score):
        assert number is None or np.isfinite(number)


def test_a_distance_of_nothing_is_nothing() -> None:
    assert pair([[0.1, 0.9]], [[0.1, 0.9]]).distance == 0
    assert pair([1.0, 0.0], [1.0, 0.1]).distance == pytest.approx(0.1)
    assert pair([1.0], [1.0, 2.0]).distance is None


def test_the_score_is_the_largest_probability() -> None:
    found = pair([[0.1, 0.9], [0.7, 0.3]], [[0.4, 0.6], [0.6, 0.4]])
    assert (found.score, found.candidate_score) == (pytest.approx(0.8), pytest.approx(0.6))
    logits = pair([[0.0, 0.0]], [[1000.0, 0.0]])
    assert (logits.score, logits.candidate_score) == (pytest.approx(0.5), pytest.approx(1.0))
    boxes = pair([[0, 0, 1, 1, 0.9]], [[0, 0, 1, 1, 0.7]], by="iou")
    assert (boxes.score, boxes.candidate_score) == (pytest.approx(0.9), pytest.approx(0.7))
    assert pair([1.0], [1.0]).score is None


def test_the_output_that_is_compared_is_the_table_or_the_one_named() -> None:
    serving = {"count": np.array([3]), "p": np.array([[0.1, 0.9]])}
    candidate = {"count": np.array([4]), "p": np.array([[0.2, 0.8]])}
    assert compare(serving, candidate).agrees
    assert not compare(serving, candidate, output="count").agrees
    assert not compare(serving, {"count": np.array([3])}).agrees  # it has no such output
    with pytest.raises(ValueError, match="expected one of count, p"):
        compare(serving, candidate, output="q")
    with pytest.raises(ValueError, match="expected one of argmax"):
        compare(serving, candidate, by="feeling")


def test_nan_counts_only_where_the_serving_version_has_none() -> None:
    fine, odd = {"y": np.array([1.0])}, {"y": np.array([np.nan])}
    assert nonfinite(fine, odd)
    assert not nonfinite(odd, odd)
    assert not nonfinite(fine, fine)
    assert not nonfinite({"y": np.array(["cat"], object)}, {"y": np.array(["dog"], object)})

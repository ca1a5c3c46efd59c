"""The quantile sketch: its accuracy, merging, and what a stranger may send as one."""

from __future__ import annotations

import json
import math
import random
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.sketch import ACCURACY, LARGEST, MAX_BINS, SMALLEST, Sketch

values = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9)
GOOD = {"above": [0, 2, 7, 1], "below": [], "zero": 1, "sum": 4.0, "min": 0.0, "max": 1.2}


def sketch_of(*given: float) -> Sketch:
    sketch = Sketch()
    for value in given:
        sketch.add(value)
    return sketch


@given(st.lists(values, min_size=1), st.floats(0, 1))
def test_a_quantile_is_within_its_accuracy_of_the_true_one(given: list[float], q: float) -> None:
    true = sorted(given)[math.floor(q * (len(given) - 1))]
    assert abs(sketch_of(*given).quantile(q) - true) <= abs(true) * ACCURACY * 1.000001 + SMALLEST


@given(st.lists(st.lists(st.integers(-1000, 1000)), min_size=1))
def test_merged_sketches_equal_one_sketch_of_all_in_any_order(parts: list[list[int]]) -> None:
    whole, there, back = sketch_of(*chain.from_iterable(parts)), Sketch(), Sketch()
    for part, reverse in zip(parts, reversed(parts), strict=True):
        there.merge(sketch_of(*part))
        back.merge(sketch_of(*reverse))
    assert there == whole == back


@given(st.lists(values, min_size=1))
def test_a_sketch_reads_back_as_it_was_written(given: list[float]) -> None:
    sketch = sketch_of(*given)
    assert Sketch.from_plain(json.loads(json.dumps(sketch.to_plain()))) == sketch
    assert sketch.mean == pytest.approx(sum(given) / len(given), abs=1e-3)
    assert (sketch.count, sketch.min, sketch.max) == (len(given), min(given), max(given))


def test_what_is_written_is_bounded_and_keeps_the_upper_quantiles() -> None:
    rng = random.Random(1)
    drawn = [rng.choice((-1, 1)) * 10 ** rng.uniform(-8, 11) for _ in range(20_000)]
    sketch = sketch_of(*drawn)
    plain = sketch.to_plain()
    assert len(plain["above"]) + len(plain["below"]) <= 2 * MAX_BINS
    assert len(json.dumps(plain)) < 4096
    read = Sketch.from_plain(plain)
    assert read.count == 20_000
    for q in (0.0, 0.01, 0.99, 1.0):
        assert read.quantile(q) == sketch.quantile(q)


def test_counts_weigh_and_never_run_over() -> None:
    sketch = Sketch()
    sketch.add(10.0, 99)
    sketch.add(1000.0)
    assert sketch.quantile(0.5) == pytest.approx(10, rel=ACCURACY)
    assert sketch.quantile(1.0) == 1000
    for _ in range(4):
        sketch.add(10.0, 2**53 - 1)
    assert Sketch.from_plain(sketch.to_plain()).count == 2**53 - 1
    assert 10 <= sketch.mean <= 1000


def test_values_beyond_the_range_count_at_its_end() -> None:
    sketch = sketch_of(1e300, -1e300, 1e-300)
    assert (sketch.min, sketch.max, sketch.quantile(0.5)) == (-LARGEST, LARGEST, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Sketch().add(value)


def test_an_empty_sketch_has_no_quantile_and_is_not_sent() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Sketch().quantile(0.5)
    with pytest.raises(ValueError, match="at least one"):
        _ = Sketch().mean
    with pytest.raises(BadMessage, match="at least one"):
        Sketch.from_plain({**GOOD, "above": [], "zero": 0})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("above", [0, 2, 0, 1]),  # the same bin twice
        ("above", [7, 1, 0, 2]),
        ("above", [0]),
        ("above", [0, 0]),
        ("above", [0, -1]),
        ("above", [0, 2**60]),
        ("above", [0, True]),
        ("above", [0.0, 2]),
        ("above", [10**9, 1]),
        ("above", [n for key in range(MAX_BINS + 1) for n in (key, 1)]),
        ("below", [[0, 1]]),
        ("below", {"0": 1}),
        ("zero", -1),
        ("zero", 1.5),
        ("sum", "4"),
        ("sum", 1e300),
        ("min", 2.0),
        ("max", math.inf),
        ("max", math.nan),
        ("max", True),
        ("more", 1),
    ],
)
def test_what_is_no_sketch_is_refused(field: str, value: object) -> None:
    Sketch.from_plain(GOOD)
    with pytest.raises(BadMessage):
        Sketch.from_plain({**GOOD, field: value})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner),
    )
)
def test_anything_else_raises_nothing_but_bad_message(plain: Any) -> None:
    with pytest.raises(BadMessage):
        Sketch.from_plain(plain)
    with pytest.raises(BadMessage):
        Sketch.from_plain({**GOOD, "below": plain, "more": 1})

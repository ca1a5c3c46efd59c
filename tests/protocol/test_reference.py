"""A variant's reference: strictly read, and bounds that know that it is finite."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from pilotwave_protocol.reference import (
    BadReference,
    Confidence,
    Edges,
    Reference,
    parse_reference,
    top_probabilities,
)

WHOLE = Reference(
    inputs=500,
    confidence=Confidence(below=0.71, low=50, output="probs"),
    classes=(200, 300),
    numbers={"brightness": Edges(0.1, 0.8, 10)},
)


def test_what_is_written_is_read_again() -> None:
    assert parse_reference(WHOLE.to_bytes()) == WHOLE
    assert parse_reference(Reference(inputs=100).to_bytes()) == Reference(inputs=100)


@pytest.mark.parametrize(("low", "inputs"), [(50, 500), (10, 100), (0, 500), (200, 2000)])
def test_bound_is_a_quarter_above_what_one_reference_in_a_hundred_would_hide(
    low: int, inputs: int
) -> None:
    reference = Reference(inputs, Confidence(0.5, low))
    assert reference.share("low_confidence") == low / inputs
    bound = reference.bound("low_confidence")
    assert bound is not None
    hidden = bound / 1.25
    chance = sum(
        math.comb(inputs, k) * hidden**k * (1 - hidden) ** (inputs - k) for k in range(low + 1)
    )
    assert chance == pytest.approx(0.01, rel=1e-3)


def test_bound_leaves_something_to_notice() -> None:
    assert Reference(500, Confidence(0.5, 499)).bound("low_confidence") == 0.9


def test_only_what_the_reference_knows_has_a_bound() -> None:
    assert WHOLE.share("brightness_outside") == 0.02
    assert WHOLE.bound("brightness_outside") == pytest.approx(0.05, abs=0.01)
    for metric in ("brightness", "latency_ms", "noise_outside", "top_class"):
        assert WHOLE.bound(metric) is None, metric
    assert Reference(500).bound("low_confidence") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "pilotwave/reference/2"}, "schema: expected pilotwave/reference/1"),
        ({"inputs": 99}, "inputs: expected a whole number from 100"),
        ({"inputs": 40}, "inputs"),
        ({"classes": [400, 101]}, "classes: expected how many of the 500 inputs"),
        ({"classes": [True]}, "classes"),
        ({"confidence": {"below": "x", "low": 1, "output": None, "logits": False}}, "below"),
        ({"confidence": {"below": 0.5, "low": 501, "output": None, "logits": False}}, "low"),
        ({"numbers": {"b": {"low": 1, "high": 0, "outside": 0}}}, "numbers.b.high"),
        (
            {"numbers": {"B": {"low": 0, "high": 1, "outside": 0}}},
            "numbers: expected names of metrics",
        ),
        ({"numbers": {f"n{n}": {} for n in range(5)}}, "numbers"),
        ({"threshold": 3}, "unknown field"),
    ],
)
def test_anything_else_is_refused_and_says_why(changes: dict[str, Any], said: str) -> None:
    plain = {**json.loads(WHOLE.to_bytes()), **changes}
    with pytest.raises(BadReference, match=said):
        parse_reference(json.dumps(plain).encode())


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"{" * 99, b'{"a": NaN}', b" " * (65 << 10)])
def test_what_is_no_document_is_refused(raw: bytes) -> None:
    with pytest.raises(BadReference):
        parse_reference(raw)


def test_top_probability_of_logits_is_that_of_their_softmax() -> None:
    logits = np.array([[0.0, 0.0, 0.0, 0.0], [900.0, -900.0, 0.0, 0.0]], np.float32)
    assert top_probabilities(logits, logits=True).tolist() == [0.25, 1.0]
    shares = np.array([[0.25, 0.75]], np.float32)
    assert top_probabilities(shares, logits=False).tolist() == [0.75]

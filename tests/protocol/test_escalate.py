"""`escalate.json`: what it may say, and one meaning of a confidence at the desk and on devices."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.escalate import (
    EscalateBudget,
    Escalation,
    Promise,
    Target,
    confidence,
    parse_escalate,
)

SAID = Escalation(
    rule="margin",
    output="probs",
    softmax=False,
    threshold="0.62",
    promise=Promise("0.02", "0.1", 500),
    to=(Target("site", "detector-big", "2.1.0"), Target("cloud", "detector-huge")),
    encode="uint8",
    budget=EscalateBudget("0.3", 20_000_000),
    timeout_ms=150,
)
GONE = object()


def changed(path: str, value: Any) -> bytes:
    """The file with one field changed, or taken away."""
    plain: dict[str, Any] = json.loads(SAID.to_bytes())
    *outer, key = path.split(".")
    at: Any = plain
    for word in outer:
        at = at[int(word) if word.isdigit() else word]
    if value is GONE:
        del at[key]
    else:
        at[key] = value
    return json.dumps(plain).encode()


def test_what_is_written_is_read_back() -> None:
    assert parse_escalate(SAID.to_bytes()) == SAID
    assert b"version" not in SAID.to_bytes().split(b"detector-huge")[1]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema", "pilotwave/escalate/2", "expected pilotwave/escalate/1"),
        ("rule", "guess", "margin or top or entropy"),
        ("output", 3, "expected text"),
        ("softmax", GONE, "the field is missing"),
        ("threshold", "1.5", "a decimal number from 0 to 1"),
        ("threshold", 0.62, "text of at most 16"),  # a number is another one in each reader
        ("threshold", "nan", "a decimal number from 0 to 1"),
        ("threshold", "6e-1", "a decimal number from 0 to 1"),
        ("to", [], "at least one"),
        ("to.1.tier", "site", "one model for each tier"),
        ("to.0.tier", "moon", "site or cloud"),
        # the signed file names no address: where the model is, the device's owner says
        ("to.0.url", "http://198.51.100.7", "unknown field 'url'"),
        ("to.0.model", "http://198.51.100.7/m", "model name"),
        ("to.0.model", "../m", "model name"),
        ("to.0.version", "1/../..", "version"),
        ("encode", "fp64", "fp32 or uint8"),
        ("budget.share", "-0.1", "a decimal number from 0 to 1"),
        ("budget.bytes_per_day", 0, "a whole number from 1"),
        ("budget.tracked", True, "a tracked budget gives it up"),
        ("timeout_ms", 0, "a whole number from 1"),
        ("timeout_ms", 3_600_000, "a whole number from 1 to 60000"),
        ("promise.labelled", 0, "a whole number from 1"),
        ("site", "https://gw.local", "unknown field 'site'"),
    ],
)
def test_anything_else_is_refused(path: str, value: object, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        parse_escalate(changed(path, value))


def test_a_file_that_is_too_long_is_refused() -> None:
    with pytest.raises(ProtocolError, match="at most 16384 bytes"):
        parse_escalate(SAID.to_bytes() + b" " * (16 << 10))


@pytest.mark.parametrize(
    ("rule", "sure", "torn"), [("margin", 0.9, 0.0), ("top", 0.95, 0.5), ("entropy", 0.714, 0.0)]
)
def test_confidence_runs_from_a_tie_to_one(rule: str, sure: float, torn: float) -> None:
    assert confidence([0.95, 0.05], rule, softmax=False) == pytest.approx(sure, abs=1e-3)
    assert confidence([0.5, 0.5], rule, softmax=False) == pytest.approx(torn)
    assert confidence([1.0, 0.0, 0.0], rule, softmax=False) == pytest.approx(1.0)


def test_logits_are_made_probabilities_first() -> None:
    assert confidence([3.0, 0.0], "top", softmax=True) == pytest.approx(1 / (1 + math.exp(-3)))
    assert confidence([9000.0, -9000.0], "margin", softmax=True) == 1.0


@pytest.mark.parametrize("scores", [[], [1.0], [math.nan, 0.5], [math.inf, 0.1], [3.0, -1.0]])
def test_scores_that_tell_nothing_have_no_confidence(scores: list[float]) -> None:
    assert confidence(scores, "margin", softmax=False) is None

"""An update: the statement that a device signs, and the numbers beside it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.statistics import Statistics, read_numbers, scores, with_ones
from pilotwave_protocol.learning.update import Update, parse_update

UPDATE = Update("home", "cam-1", "detector", "a" * 64, 1, 40, "b" * 64, 196)


def sums(rows: int, seed: int = 0) -> tuple[Statistics, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(rows, 6)), random.integers(0, 3, rows)
    return Statistics(with_ones(x).T @ with_ones(x), with_ones(x).T @ np.eye(3)[y]), x, y


def test_a_statement_reads_and_writes_back_the_same() -> None:
    assert parse_update(UPDATE.to_bytes()) == UPDATE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", 0),
        ("examples", 0),
        ("plan", "autumn-1"),
        ("device", "Cam 1"),
        ("size", 10**9),
        ("extra", 1),
        ("schema", "pilotwave/update/2"),
    ],
)
def test_a_wrong_field_is_refused(field: str, value: object) -> None:
    with pytest.raises(BadMessage):
        parse_update(json.dumps({**json.loads(UPDATE.to_bytes()), field: value}).encode())


def test_sums_come_back_as_they_were_sent_to_float32() -> None:
    sent, _, _ = sums(40)
    raw = sent.to_bytes()
    assert len(raw) == 4 * (7 * 8 // 2 + 7 * 3)
    came = Statistics.from_bytes(raw, features=6, classes=3)
    np.testing.assert_allclose(came.gram, sent.gram, rtol=1e-6)
    np.testing.assert_allclose(came.cross, sent.cross, rtol=1e-6)
    assert (came.gram == came.gram.T).all()
    assert came.examples == 40


@pytest.mark.parametrize("change", [b"", b"\0" * 4, b"\0\0\xc0\x7f", b"\0\0\x80\x7f"])
def test_numbers_of_another_size_or_none_are_refused(change: bytes) -> None:
    raw = sums(40)[0].to_bytes()
    wrong = raw + change if change in (b"", b"\0" * 4) else raw[:-4] + change
    if change == b"":
        wrong = raw[:-1]
    with pytest.raises(BadMessage):
        Statistics.from_bytes(wrong, features=6, classes=3)


def test_an_infinity_is_no_number() -> None:
    with pytest.raises(BadMessage, match="finite"):
        read_numbers(np.array([1, np.inf], "<f4").tobytes(), 2)


def test_sums_of_two_devices_give_the_head_of_all_their_examples() -> None:
    (one, x1, y1), (two, x2, y2) = sums(40, 1), sums(30, 2)
    x, y = with_ones(np.vstack([x1, x2])), np.eye(3)[np.concatenate([y1, y2])]
    pooled = np.linalg.solve(x.T @ x + 0.5 * np.eye(7), x.T @ y)
    np.testing.assert_allclose((one + two).head(0.5), pooled, atol=1e-12)
    np.testing.assert_allclose((one + two - two).head(0.5), one.head(0.5), atol=1e-9)
    assert scores(pooled, x1).shape == (40, 3)

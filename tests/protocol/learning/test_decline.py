"""A device's word that it takes no part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pilotwave_protocol import strictjson
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.decline import Decline, Why, parse_decline, step_below

TIMED_OUT = Decline("field", "cam-1", "detector", "a" * 64, 1, Why.TIMED_OUT)
TOO_FEW = replace(TIMED_OUT, why=Why.TOO_FEW_EXAMPLES, examples=10)


@pytest.mark.parametrize("said", [TIMED_OUT, TOO_FEW, replace(TOO_FEW, examples=0)])
def test_what_is_written_is_read(said: Decline) -> None:
    assert parse_decline(said.to_bytes()) == said


@pytest.mark.parametrize(
    "changes",
    [
        {"why": "because of Ada"},
        {"why": None},
        {"why": "timed_out", "examples": 10},
        {"examples": None},
        {"examples": 11},
        {"examples": True},
        {"examples": "10"},
        {"round": 0},
        {"plan": "a"},
        {"detail": "a text"},
        {"schema": "pilotwave/decline/2"},
    ],
    ids=str,
)
def test_anything_else_is_refused(changes: dict[str, Any]) -> None:
    said = {**strictjson.loads(TOO_FEW.to_bytes(), max_bytes=4096), **changes}
    with pytest.raises(BadMessage):
        parse_decline(strictjson.dumps(said))


def test_examples_are_told_in_steps() -> None:
    assert [step_below(n) for n in (0, 1, 4, 5, 19, 20, 10**9)] == [0, 1, 1, 5, 10, 20, 50_000]

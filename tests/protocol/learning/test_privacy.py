"""Whether a plan is open or masked, and what goes with masks."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pilotwave_protocol.errors import BadPlan
from pilotwave_protocol.learning.plan import Aggregate, Noise, parse_plan
from pilotwave_protocol.learning.privacy import OPEN, Mode, Privacy
from tests.protocol.learning.plans import RIDGE, SGD
from tests.protocol.learning.test_plan import with_change

MASKED = replace(RIDGE, privacy=Privacy(Mode.MASKED, 8))


def test_a_plan_is_open_unless_it_says_otherwise() -> None:
    # a device that knows of no masks takes part in open plans, and refuses the others
    assert "privacy" not in json.loads(RIDGE.to_bytes())
    assert parse_plan(with_change(RIDGE, "privacy", {"mode": "open"})).privacy == OPEN
    assert parse_plan(MASKED.to_bytes()) == MASKED


@pytest.mark.parametrize(
    ("group", "threshold"), [(4, 3), (5, 4), (6, 4), (7, 5), (8, 6), (9, 6), (16, 11)]
)
def test_two_thirds_must_answer(group: int, threshold: int) -> None:
    assert Privacy(Mode.MASKED, group).threshold == threshold


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        ({"mode": "masked", "group": 3}, "privacy.group: expected a whole number from 4 to 16"),
        ({"mode": "masked", "group": 17}, "privacy.group"),
        ({"mode": "masked"}, "privacy.group"),
        ({"mode": "open", "group": 8}, "privacy: unknown field 'group'"),
        ({"mode": "hidden"}, "privacy.mode: expected a Mode"),
    ],
)
def test_a_wrong_privacy_is_named(privacy: dict[str, object], words: str) -> None:
    with pytest.raises(BadPlan) as raised:
        parse_plan(with_change(RIDGE, "privacy", privacy))
    assert words in str(raised.value)


def test_masks_go_with_neither_steps_nor_noise() -> None:
    noisy = replace(RIDGE, aggregate=Aggregate.SUM, noise=Noise("2", "1e-6"))
    for plan in (SGD, noisy):
        with pytest.raises(BadPlan, match=r"privacy\.mode: expected open with sgd or noise"):
            parse_plan(replace(plan, privacy=Privacy(Mode.MASKED, 8)).to_bytes())

"""How far devices are believed: rules as rows; numbers are (seq, root, timestamp, snapshot)."""

from __future__ import annotations

import random

import pytest

from pilotwave_server.recovery.ahead import Ahead, Numbers
from pilotwave_server.recovery.plan import (
    MAX_NUMBER,
    ONE_MAY_LIFT,
    ROOM,
    TWO_MAY_LIFT,
    lift_of,
)

HERE = Numbers(100, 2, 50, 40)
HUGE = Numbers(MAX_NUMBER, MAX_NUMBER, MAX_NUMBER, MAX_NUMBER)


def ahead(
    first: Numbers, second: Numbers = HERE, *, enrolled: int = 9, stray: bool = False
) -> Ahead:
    return Ahead(HERE, first, second, devices=1, enrolled=enrolled, stray=stray)


@pytest.mark.parametrize(
    ("found", "seq", "timestamp", "snapshot"),
    [
        # a canary saw the last change before a failover
        (ahead(Numbers(101, 2, 51, 41)), 102, 52, 42),
        # two devices saw a day's changes
        (ahead(Numbers(900, 2, 80, 70), Numbers(890, 2, 80, 70)), 901, 81, 71),
        # one device of many says so alone: a person decides
        (ahead(Numbers(900, 2, 80, 90)), 100, 50, 40),
        # the only device of a fleet is believed as two are
        (ahead(Numbers(900, 2, 80, 70), Numbers(), enrolled=1), 901, 81, 71),
        # one lies beyond all bounds; what two others saw still counts
        (ahead(HUGE, Numbers(101, 2, 51, 41)), 102, 52, 42),
        # two lie
        (ahead(HUGE, HUGE), 100, 50, 40),
        # the only one lies
        (ahead(HUGE, Numbers(), enrolled=1), 100, 50, 40),
        # another set was told under the newest number
        (ahead(HERE, stray=True), 101, 50, 40),
        (ahead(HUGE, stray=True), 101, 50, 40),
        # root alone: no server can sign that
        (ahead(HERE._replace(root=3), HERE._replace(root=3)), 100, 50, 40),
        # a timestamp alone takes a snapshot along, as each signature does
        (ahead(HERE._replace(timestamp=55)), 100, 56, 41),
    ],
)
def test_what_is_believed(found: Ahead, seq: int, timestamp: int, snapshot: int) -> None:
    assert lift_of(found) == Numbers(seq, 2, timestamp, snapshot)


def test_whatever_is_reported_no_number_leaps_or_falls() -> None:
    chance = random.Random(3)
    for _ in range(20_000):
        tops = [
            chance.choice([0, 100, 101, 10 ** chance.randrange(17), MAX_NUMBER]) for _ in range(8)
        ]
        here = Numbers(*(chance.choice([1, 10 ** chance.randrange(1, 16)]) for _ in range(4)))
        pairs = [sorted((a, b)) for a, b in zip(tops[:4], tops[4:], strict=True)]
        found = Ahead(
            here,
            Numbers(*(high for _, high in pairs)),
            Numbers(*(low for low, _ in pairs)),
            devices=1,
            enrolled=chance.randrange(1, 5),
            stray=chance.random() < 0.2,
        )
        lifted = lift_of(found)
        for before, after in zip(here, lifted, strict=True):
            assert before <= after <= before + TWO_MAY_LIFT + ONE_MAY_LIFT + 1
            assert after <= max(before + 1, ROOM + 1)
        assert lifted.root == here.root

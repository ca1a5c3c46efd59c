"""Plans of the scope `device`: what a publisher may allow a device to do for itself."""

from __future__ import annotations

import json

import pytest

from pilotwave_protocol.errors import BadPlan
from pilotwave_protocol.learning.device_plan import parse_any_plan, parse_device_plan
from pilotwave_protocol.learning.plan import parse_plan
from tests.protocol.learning.plans import DEVICE, RIDGE
from tests.protocol.learning.test_plan import with_change


def test_a_plan_reads_and_writes_back_the_same() -> None:
    assert parse_device_plan(DEVICE.to_bytes()) == DEVICE
    assert parse_device_plan(DEVICE.to_bytes()).to_bytes() == DEVICE.to_bytes()
    assert parse_any_plan(DEVICE.to_bytes()) == DEVICE
    assert parse_any_plan(RIDGE.to_bytes()) == RIDGE


def test_no_reader_takes_a_plan_of_one_scope_for_the_other() -> None:
    # an agent or a server that does not know the scope must not compute or send anything for it
    with pytest.raises(BadPlan):
        parse_plan(DEVICE.to_bytes())
    with pytest.raises(BadPlan, match="scope"):
        parse_device_plan(RIDGE.to_bytes())
    named = json.loads(RIDGE.to_bytes()) | {"scope": "device"}
    with pytest.raises(BadPlan):
        parse_any_plan(json.dumps(named).encode())


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("scope", "group", "scope: expected device"),
        ("schema", "pilotwave/plan/2", "schema"),
        ("least_devices", 3, "unknown field 'least_devices'"),
        ("distance", "0", "distance: expected a number from 1e-9"),
        ("distance", "inf", "distance: expected a number"),
        ("least_gain", "0", "least_gain"),  # what is no better is never used
        ("least_gain", "1.5", "least_gain: expected a number from 1e-9 to 1"),
        ("golden", "95", "golden: expected a number from 1e-9 to 1"),
        ("least_examples", 29, "least_examples: expected a whole number from 30"),
        ("most_examples", 59, "most_examples: expected at least 60"),
        ("scores.kind", "boxes", "scores.kind"),
        ("scores.output", "active", "another output than the embedding"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(path: str, value: object, words: str) -> None:
    with pytest.raises(BadPlan, match=words):
        parse_device_plan(with_change(DEVICE, path, value))

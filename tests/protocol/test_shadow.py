"""The condition `shadow` is read strictly: what makes no sense is refused by name."""

from __future__ import annotations

import pytest

from pilotwave_protocol import shadow
from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.names import check_metric

GOOD = {"share": 0.05, "cpu": 0.1, "min_calls": 500}


def test_what_is_written_is_read_back() -> None:
    found = shadow.read_shadow(GOOD)
    assert found == shadow.Shadow(0.05, 0.1, 500)
    assert shadow.read_shadow(found.to_plain()) == found


def test_what_a_later_server_adds_is_passed_over() -> None:
    assert shadow.read_shadow({**GOOD, "later": True}) == shadow.Shadow(0.05, 0.1, 500)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "share, cpu and min_calls"),
        ("5%", "share, cpu and min_calls"),
        ({**GOOD, "share": 0}, "shadow.share"),
        ({**GOOD, "share": 1.5}, "shadow.share"),
        ({**GOOD, "share": "5%"}, "shadow.share"),
        ({**GOOD, "share": True}, "shadow.share"),
        ({**GOOD, "share": float("nan")}, "shadow.share"),
        ({**GOOD, "cpu": -0.1}, "shadow.cpu"),
        ({"share": 0.05, "min_calls": 500}, "shadow.cpu"),
        ({**GOOD, "min_calls": 0.5}, "shadow.min_calls"),
        ({**GOOD, "min_calls": True}, "shadow.min_calls"),
        ({**GOOD, "min_calls": -1}, "shadow.min_calls"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(value: object, named: str) -> None:
    with pytest.raises(BadMessage, match=named):
        shadow.read_shadow(value)


def test_its_metrics_are_names_of_metrics_with_the_reserved_prefix() -> None:
    for metric in shadow.SHADOW_METRICS:
        assert check_metric(metric).startswith(shadow.RESERVED_PREFIX)

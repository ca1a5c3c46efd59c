"""A report that no server could read is sent without the part that is at fault."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from pilotwave_agent.check_in.build import Spare, check_in_of
from pilotwave_agent.core import records
from pilotwave_agent.core.state import DeviceState, ModelSlot, Refusal
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.fields import MAX_INT
from pilotwave_protocol.messages.check_in import CheckIn, DeviceEvent, parse_check_in
from pilotwave_protocol.states import ModelState

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
GOOD = DeviceEvent(900, NOW, "healthy", "detector", "1.0.0")


def sent(state: DeviceState, **given: Any) -> CheckIn:
    """Make a report, and see that it can be read."""
    words: dict[str, Any] = {"fleet": "acme", "device": "cam-1", "seq": 1, "agent": "0.1.0"}
    report = check_in_of(state, **words, **{"facts": None, "progress": {}, **given})
    assert parse_check_in(report.to_bytes()) == report
    return report


@pytest.mark.parametrize(
    "event",
    [
        DeviceEvent(MAX_INT + 1, NOW, "poisoned"),
        DeviceEvent(1, NOW, "x" * 33),
        DeviceEvent(1, NOW, "tried", detail="a\0b"),
        DeviceEvent(1, NOW, "tried", detail="half \ud800 of it"),
        DeviceEvent(1, NOW, "tried", model="../x"),
    ],
)
def test_an_event_that_cannot_be_read_holds_no_other_back(event: DeviceEvent) -> None:
    assert sent(DeviceState(events=(event, GOOD))).events == (GOOD,)
    # however many come first
    many = tuple(DeviceEvent(n, NOW, "x" * 33) for n in range(1, 200))
    assert sent(DeviceState(events=(*many, event, GOOD))).events == (GOOD,)


def test_numbers_beyond_what_a_message_holds_are_held_within_it() -> None:
    tuf = {"root": 10**31, "timestamp": -1, "snapshot": 2**60}
    memory = AntiRollback(directive_seq=10**20)
    report = sent(DeviceState(tuf=tuf, memory=memory, dropped=2**70))
    assert report.tuf == {"root": MAX_INT, "timestamp": 0, "snapshot": MAX_INT}
    assert (report.directive_seq, report.dropped_events) == (MAX_INT, MAX_INT)


def test_odd_texts_are_made_fit() -> None:
    slot = ModelSlot("detector", ModelState.FAILED, reason="internal", detail="a\0b \ud800 c")
    state = DeviceState(models={"detector": slot}, refusal=Refusal("r" * 99, "x\0y\udfff"))
    report = sent(state, trouble=None)
    assert report.models[0].detail == "ab ? c"
    assert report.refusal == {"reason": "r" * 64, "detail": "xy?"}


def test_facts_that_decide_what_fits_stay_where_there_are_too_many() -> None:
    facts: dict[str, Any] = {f"cpu.flag{n:03}": True for n in range(90)}
    facts |= {"arch": "aarch64", "runtime.onnxruntime": "1.23.2", "BAD KEY": 1, "big": 2**60}
    told = sent(DeviceState(), facts=facts).facts
    assert told is not None
    assert len(told) == 64
    assert {"arch", "runtime.onnxruntime"} <= told.keys()
    assert {"BAD KEY", "big"}.isdisjoint(told)


@pytest.mark.parametrize("at", [-1e18, -62e9, 0.0, 2.6e11, 1e18])
def test_a_clock_that_says_nonsense_makes_an_event_with_a_date(at: float) -> None:
    state = records.apply(DeviceState(), records.noticed("tried", at=at))
    assert len(sent(state).events) == 1


@pytest.mark.parametrize("spare", [Spare.SOME, Spare.MOST])
def test_what_is_left_out_of_a_report_that_was_refused(spare: Spare) -> None:
    slot = ModelSlot("detector", ModelState.HEALTHY)
    state = DeviceState(models={"detector": slot}, events=(GOOD,), refusal=Refusal("a", "b"))
    report = sent(state, facts={"arch": "x86_64"}, spare=spare)
    assert (report.events, report.facts, report.refusal) == ((), None, None)
    assert len(report.models) == (1 if spare is Spare.SOME else 0)

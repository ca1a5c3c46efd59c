"""Where the variant that a class chose fails its self-test, the device gets the next best of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pilotwave_protocol.figures import VariantFigures
from pilotwave_protocol.messages.check_in import Installed, ModelReport
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import ModelState, Reason
from pilotwave_server.db import touch_fleet
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.rollouts.choice.classes import class_of
from pilotwave_server.rollouts.choice.store import Answer, Wish, ask, take
from tests.server.device_api.peer import SimulatedDevice
from tests.server.fleet_fixtures import Fleet
from tests.server.rollouts.choosing import NAMES, choosing

__all__ = ["choosing"]

RUNS = Installed("1.0.0", "ab" * 32, "onnx-fp32", 1)


def told(fleet: Fleet, device: SimulatedDevice) -> Entry:
    fleet.context.get(FleetState).refresh()
    (entry,) = device.directive().entries
    return entry


def fails(fleet: Fleet, device: SimulatedDevice, reason: Reason, **given: Any) -> str:
    """Have what the device is told to run fail there; the variant that it is told then."""
    device.check_in()
    directive = device.directive()
    (entry,) = directive.entries
    tried = Installed(entry.version, entry.sha256, entry.variant, entry.counter)
    report = ModelReport("detector", ModelState.FAILED, RUNS, candidate=tried, reason=str(reason))
    answer = device.check_in(report, **{"directive_seq": directive.seq, **given})
    assert answer.status_code == 200
    return told(fleet, device).variant


def device_of(fleet: Fleet, name: str) -> SimulatedDevice:
    return fleet.device(name, line="a")


def test_a_device_where_the_winner_fails_gets_the_next_best_and_then_the_next(
    choosing: Fleet,
) -> None:
    cam = device_of(choosing, "cam-10")
    assert told(choosing, cam).variant == "tiny"
    assert fails(choosing, cam, Reason.SELFTEST_MISMATCH) == "int8"
    answer = choosing.operator.get("/api/v1/devices/cam-10/why", params={"model": "detector"})
    assert (
        "tiny failed on this device; int8: 2 ms (median of 3 devices" in answer.json()["sentence"]
    )
    assert fails(choosing, cam, Reason.SELFTEST_MEMORY) == "fp32"
    # none is left: it stays on what it has, and the choice is what it was
    assert fails(choosing, cam, Reason.SELFTEST_LOAD) == "tiny"


def test_a_failure_counts_for_its_own_device_alone(choosing: Fleet) -> None:
    for n in range(10, 14):
        assert fails(choosing, device_of(choosing, f"cam-{n}"), Reason.SELFTEST_MISMATCH) == "int8"
    assert told(choosing, device_of(choosing, "cam-20")).variant == "tiny"


@pytest.mark.parametrize(
    "reason", [Reason.BLOB_MISMATCH, Reason.DISK_FULL, Reason.OPERATOR_ROLLBACK]
)
def test_what_says_nothing_of_the_variant_changes_nothing(choosing: Fleet, reason: Reason) -> None:
    assert fails(choosing, device_of(choosing, "cam-10"), reason) == "tiny"


def test_an_operator_who_lets_it_try_again_gets_the_winner_tried(choosing: Fleet) -> None:
    cam = device_of(choosing, "cam-10")
    before = cam.directive().seq
    assert fails(choosing, cam, Reason.SELFTEST_MISMATCH) == "int8"
    assert choosing.act("cam-10", "models/detector/retry").status_code == 200
    again = told(choosing, cam)
    assert (again.variant, again.attempt) == ("tiny", 1)
    # what it reports before it heard of that is of the try before
    assert fails(choosing, cam, Reason.SELFTEST_MISMATCH, directive_seq=before) == "tiny"
    assert fails(choosing, cam, Reason.SELFTEST_MISMATCH) == "int8"


def test_another_machine_of_the_name_has_failed_nothing(choosing: Fleet) -> None:
    assert fails(choosing, device_of(choosing, "cam-10"), Reason.SELFTEST_MISMATCH) == "int8"
    choosing.registry.clock.advance(seconds=60)  # type: ignore[attr-defined]  # the tests' clock
    assert choosing.act("cam-10", "decommission").status_code == 200
    another = SimulatedDevice("cam-10", choosing.client)
    code = choosing.code(device="cam-10", labels={"line": "a"})
    assert another.enrol(code).status_code == 201
    assert another.check_in().status_code == 200
    choosing.group("others", "line=z")  # the fleet's next change
    assert told(choosing, another).variant == "tiny"
    assert fails(choosing, another, Reason.SELFTEST_MISMATCH) == "int8"


def test_what_a_device_compared_and_could_not_run_it_is_not_given(choosing: Fleet) -> None:
    cam = device_of(choosing, "cam-10")
    with choosing.context.db.write() as session:
        device = session.query(DeviceRow).filter_by(name="cam-10").one()
        key = device.id, class_of(device.facts), told(choosing, cam).sha256
        later = choosing.registry.clock() + timedelta(seconds=1)
        ask(session, [Wish(*key, NAMES)], now=later)
        failed = VariantFigures(failed=str(Reason.SELFTEST_MISMATCH))
        take(session, [Answer(*key, "tiny", failed)], now=later)
        touch_fleet(session)
    assert told(choosing, cam).variant == "int8"

"""How often each device checks in, and what is judged by that."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from pilotwave_server.context import Context
from pilotwave_server.devices.conflicts import ends_after
from pilotwave_server.devices.intervals import every_s
from pilotwave_server.devices.tables import DeviceRow
from tests.server.device_api.peer import SimulatedDevice
from tests.server.devices.test_conflicts import IMAGE, Twin, conflict, since
from tests.server.fleet_fixtures import Fleet

CAP = "agent.max_check_in_interval_s"
ON_BATTERY = {"agent.profile": "battery"}


@pytest.mark.parametrize(
    ("told_s", "facts", "every"),
    [
        (900, {}, 900),
        (900, {CAP: 60}, 60),
        (900, {CAP: 3600}, 900),  # a cap makes nothing longer
        (900, {CAP: "60"}, 60),  # as PostgreSQL gives it
        (900, {CAP: 60.0}, 60),
        (900, {CAP: 123}, 130),  # two digits, so that there are few intervals
        (86_400, {CAP: 12_345}, 13_000),
        (1234, {CAP: 1234}, 1234),  # what the server tells is one interval for all
        (60, ON_BATTERY, 900),
        (1800, ON_BATTERY, 1800),
        (1800, {**ON_BATTERY, CAP: 60}, 900),  # the profile's floor is above a cap
        # what no agent says changes nothing
        *((900, {CAP: said}, 900) for said in ("", "x", "-5", -5, 0, 0.5, True, None, "9" * 99)),
        (60, {"agent.profile": 7}, 60),
    ],
)
def test_a_device_checks_in_as_told_within_its_own_settings(
    told_s: int, facts: dict[str, object], every: int
) -> None:
    assert every_s(told_s, facts) == every


def noted(context: Context, name: str = "cam-1") -> int | None:
    with context.db.read() as session:
        return session.scalars(select(DeviceRow.check_in_s).where(DeviceRow.name == name)).one()


def standing(fleet: Fleet) -> str:
    return str(fleet.operator.get("/api/v1/devices/cam-1").json()["standing"])


def test_enrolment_notes_the_interval_that_it_answers_with(fleet: Fleet, context: Context) -> None:
    camera = SimulatedDevice("cam-1", fleet.client)
    camera.facts[CAP] = 120
    told = camera.enrol(fleet.code()).json()["check_in_interval_s"]
    assert (told, noted(context)) == (900, 120)
    waiting = SimulatedDevice("cam-2", fleet.client)
    waiting.enrol()
    assert noted(context, "cam-2") == 900
    assert fleet.act("cam-2", "accept").status_code == 200
    assert noted(context, "cam-2") == 900


def test_another_machine_that_takes_a_name_has_its_own_interval(
    fleet: Fleet, context: Context
) -> None:
    fleet.device("cam-1").check_in(facts={CAP: 120})
    assert noted(context) == 120
    assert fleet.act("cam-1", "decommission").status_code == 200
    anew = SimulatedDevice("cam-1", fleet.client)
    assert anew.enrol(fleet.code(device="cam-1")).status_code == 201
    assert noted(context) == 900


def test_a_device_whose_settings_cap_the_interval_is_silent_by_that(
    fleet: Fleet, context: Context, clock: Any
) -> None:
    camera = fleet.device("cam-1")
    camera.check_in(facts={**camera.facts, CAP: 60})
    camera.check_in()
    assert noted(context) == 60, "its facts said so before"
    clock.advance(seconds=3 * 60 + 60)
    assert standing(fleet) == "online"
    clock.advance(seconds=11)
    assert standing(fleet) == "silent"


@pytest.mark.parametrize("said", ["x", "", "1e5", -1, 2**53 - 1, 0.25])
def test_no_fact_of_a_device_keeps_its_report_from_being_stored(
    fleet: Fleet, context: Context, said: Any
) -> None:
    camera = fleet.device("cam-1")
    assert camera.check_in(facts={CAP: said}).status_code == 200
    assert camera.check_in().status_code == 200
    assert noted(context) == 900


def test_of_two_machines_with_one_key_the_one_that_comes_less_often_counts(
    fleet: Fleet, context: Context, clock: Any
) -> None:
    """By the interval of the other one the conflict would end before each of its check-ins."""
    camera = fleet.device("cam-1", site="lab")
    twins = Twin(camera, "11" * 8), Twin(camera, "22" * 8)
    conflict(twins)
    assert since(fleet) is not None
    for _ in range(14):
        clock.advance(seconds=60)
        twins[0].reports(facts={CAP: 60})
        assert since(fleet) is not None
    clock.advance(seconds=60)
    twins[1].reports(facts={"arch": "aarch64"})
    twins[0].reports(facts={CAP: 60})
    clock.advance(seconds=8999)
    twins[0].reports(facts={CAP: 60})
    assert since(fleet) is not None
    clock.advance(seconds=1)
    twins[0].reports(facts={CAP: 60})
    assert since(fleet) is None
    camera.check_in(numbering=IMAGE, boot="11" * 8)
    assert noted(context) == 60


@pytest.mark.parametrize(("every", "ends_s"), [(900, 9000), (10, 600), (None, 600)])
def test_a_conflict_ends_after_ten_check_ins_and_ten_minutes(
    every: int | None, ends_s: int
) -> None:
    assert ends_after(DeviceRow(check_in_s=every)).total_seconds() == ends_s

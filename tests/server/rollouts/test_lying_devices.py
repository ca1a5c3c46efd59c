"""What one device can do to a rollout's gates, on a real server: it sends what it likes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from pilotwave_protocol.messages.check_in import MAX_METRICS
from pilotwave_protocol.sketch import Sketch
from pilotwave_server.rollouts.tables import RolloutSampleRow, RolloutSketchRow
from pilotwave_server.settings import Settings
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.rollouts.test_engine_http import create, in_state, live_until
from tests.server.rollouts.test_live_metrics import InUse, cams, waves

pytestmark = pytest.mark.long

__all__ = ["cams"]
LIAR = 29  # not among the canaries


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Budgets that hold nothing back: what gates do with a flood is theirs to prove."""
    wide = {"check_ins_per_minute": 6000, "events_per_hour": 100_000}
    return settings.model_copy(update=wide)


def send(cam: InUse, count: int, **changes: Any) -> None:
    """Report so many windows, as many at a time as a check-in may carry."""
    for begin in range(0, count, MAX_METRICS):
        cam.report(*(cam.window(**changes) for _ in range(min(MAX_METRICS, count - begin))))


def wave_is_open(found: dict[str, Any]) -> bool:
    return bool(found["wave"] == 0 and found["state"] == "running")


def ends(fleet: Fleet, cams: list[InUse], *, lies: float, windows: int) -> dict[str, Any]:
    """One device of the old arm says that things take `lies` more (or less) than before, in so many
    windows, after the others of its arm and before the canaries; returns the rollout at its end."""
    rollout = create(fleet, policy=waves())
    live_until(fleet, rollout, [], wave_is_open)
    liar, others = cams[LIAR], cams[:LIAR]
    for cam in cams[6:]:
        cam.live()
    liar.slower["1.0.0"] = lies
    for _ in range(3):
        send(liar, windows)
        for cam in others[:6]:
            cam.live()
    liar.slower.clear()
    return live_until(fleet, rollout, cams, in_state("completed", "rolled_back", "paused"))


@only_sqlite
@pytest.mark.parametrize("windows", [48, 401])
def test_many_windows_of_one_device_roll_back_no_healthy_version(
    fleet: Fleet, cams: list[InUse], windows: int
) -> None:
    found = ends(fleet, cams, lies=-0.6, windows=windows)
    assert found["state"] == "completed", found["failure"]


@only_sqlite
@pytest.mark.parametrize("windows", [48, 401])
def test_many_windows_of_one_device_open_no_wave_for_a_slow_version(
    fleet: Fleet, cams: list[InUse], windows: int
) -> None:
    for cam in cams:
        cam.slower["1.1.0"] = 0.58
    found = ends(fleet, cams, lies=1.2, windows=windows)
    assert found["state"] == "rolled_back", found
    assert sum(bool(cam.previous) for cam in cams) == 6  # no wave opened but the first
    assert found["failure"]["numbers"]["lies_to_pass"] >= 2
    assert "would have to lie to change this" in found["failure"]["sentence"]


@only_sqlite
def test_a_returning_devices_backlog_turns_no_gate(
    fleet: Fleet, cams: list[InUse], clock: Any
) -> None:
    """It was away for half a day, and the night was quiet: it means no harm."""
    rollout = create(fleet, policy=waves())
    live_until(fleet, rollout, [], wave_is_open)
    back = cams[LIAR]
    back.slower["1.0.0"] = -0.5
    for quarter in range(48, 0, -1):
        start = clock.now - timedelta(minutes=15 * quarter)
        back.report(back.window(start=start, end=start + timedelta(minutes=15)))
    back.slower.clear()
    found = live_until(fleet, rollout, cams, in_state("completed", "rolled_back", "paused"))
    assert found["state"] == "completed", found["failure"]


def test_of_one_device_few_windows_are_looked_at(fleet: Fleet, cams: list[InUse]) -> None:
    rollout = create(fleet, policy=waves(min_windows=1000))
    live_until(fleet, rollout, [], wave_is_open)
    send(cams[LIAR], 401)
    for cam in cams[6:LIAR]:
        cam.live()
    s = RolloutSampleRow
    with fleet.context.db.read() as session:
        counts = session.execute(select(s.device_id, func.count()).group_by(s.device_id)).all()
    assert sorted(count for _, count in counts) == [1] * 23 + [12]


@pytest.mark.parametrize("minutes", [-24 * 60, -7 * 60, 31, 24 * 60, 60 * 24 * 365])
def test_windows_of_other_times_are_not_looked_at(
    fleet: Fleet, cams: list[InUse], clock: Any, minutes: int
) -> None:
    rollout = create(fleet, policy=waves(min_windows=1000))
    live_until(fleet, rollout, [], wave_is_open)
    start = clock.now + timedelta(minutes=minutes)
    send(cams[LIAR], 16, start=start, end=start + timedelta(minutes=15))
    cams[10].live()
    with fleet.context.db.read() as session:
        assert session.scalar(select(func.count()).select_from(RolloutSampleRow)) == 1


def test_a_device_that_counts_to_the_end_drowns_no_other_in_what_people_see(
    fleet: Fleet, cams: list[InUse]
) -> None:
    rollout = create(fleet, policy=waves(min_windows=1000))
    live_until(fleet, rollout, [], wave_is_open)
    many = Sketch()
    many.add(1e12, 2**53 - 1)
    cams[LIAR].report(cams[LIAR].window(sketch=many))
    for _ in range(20):
        for cam in cams[6:LIAR]:
            cam.live()
    with fleet.context.db.read() as session:
        merged = session.scalars(select(RolloutSketchRow)).one()
        kept = Sketch.from_plain(merged.sketch, bins=1024)
    assert kept.count < 50_000
    assert kept.quantile(0.3) < 1000

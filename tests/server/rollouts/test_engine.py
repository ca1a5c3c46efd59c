"""The engine on a real database: what it does by itself, alone and with others beside it."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.registry.service import deny
from pilotwave_server.rollouts.assignments import baselines
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.engine import engine as engines
from pilotwave_server.rollouts.engine.actions import Tell
from pilotwave_server.rollouts.engine.engine import Engine
from pilotwave_server.rollouts.engine.execute import execute
from pilotwave_server.rollouts.operate import steer
from pilotwave_server.rollouts.policies.policy import (
    Deadlines,
    InstallGate,
    MetricGate,
    OnFailure,
    Pace,
    Wave,
)
from pilotwave_server.rollouts.tables import DecisionRow, RolloutDeviceRow, RolloutWaveRow
from pilotwave_server.rollouts.transitions import RolloutMoved
from tests.server.rollouts.worlds_db import AUTHOR, World, policy

INSTALL = (InstallGate(max_failure_rate=0.2),)
HALF, ALL = Wave("half", percent=50, gates=INSTALL), Wave("all", percent=100, gates=INSTALL)


class Fresh:
    """The fleet's picture as the database has it at this moment."""

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def snapshot(self) -> FleetSnapshot:
        with self.world.db.read() as session:
            return self.world.snapshot(session)


@pytest.fixture
def engine(world: World, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine that has listened for long. Its clock is the test's, which only jumps."""
    monkeypatch.setattr(engines, "JUMP_S", 10**9)
    monkeypatch.setattr(engines, "COUNT_AGAIN_S", 0.0)
    monkeypatch.setattr(engines, "COUNT_SHARE", 0.0)
    made = Engine(world.db, Fresh(world), world.now, check_in_s=60)
    pass_time(world, days=1)
    return made


def pass_time(world: World, **by: float) -> None:
    world.registry.clock.advance(**by)  # type: ignore[attr-defined]


def became(
    world: World, name: str, outcome: str, *, count: int = 1, at: datetime | None = None
) -> None:
    """So many more devices have this outcome."""
    with world.db.write() as session:
        d = RolloutDeviceRow
        known = select(d.device_id).where(d.rollout_id == int(name[1:]))
        ids = session.scalars(
            select(DeviceRow.id).where(DeviceRow.id.not_in(known)).order_by(DeviceRow.id)
        )
        moment = at or world.now()
        for id in ids.fetchmany(count):
            told: dict[str, Any] = {"outcome": outcome, "changed_at": moment, "number": 0}
            if outcome in ("switched", "healthy"):
                told["switched_at"] = moment
            session.add(d(rollout_id=int(name[1:]), device_id=id, wave=0, **told))


def decisions(world: World, name: str) -> list[tuple[str, str | None]]:
    with world.db.read() as session:
        d = DecisionRow
        rows = session.scalars(select(d).where(d.rollout_id == int(name[1:])).order_by(d.id))
        return [(row.action, row.verdict) for row in rows]


def waves(world: World, name: str) -> list[tuple[str, str, bool]]:
    """Of each wave that was opened: its verdict's word and gate, and whether it is closed."""
    with world.db.read() as session:
        w = RolloutWaveRow
        rows = session.scalars(select(w).where(w.rollout_id == int(name[1:])).order_by(w.wave))
        told = [(row.verdict or {"word": "", "gate": ""}, row.closed_at) for row in rows]
        return [(one["word"], one["gate"], closed is not None) for one, closed in told]


def heard(world: World, moment: datetime) -> None:
    with world.db.write() as session:
        session.execute(update(DeviceRow).values(last_check_in=moment))


def outcomes(world: World, name: str) -> list[str]:
    with world.db.read() as session:
        d = RolloutDeviceRow
        return sorted(session.scalars(select(d.outcome).where(d.rollout_id == int(name[1:]))))


def test_gate_on_a_metric_that_nobody_reports_pauses_and_can_be_overruled(
    world: World, engine: Engine
) -> None:
    gate = MetricGate(name="speed", metric="latency_ms")
    recipe = policy(Wave("half", percent=50, gates=(gate,)), ALL, deadlines=Deadlines(silent_s=60))
    name = world.create(recipe)
    engine.work()
    became(world, name, "healthy", count=2)
    engine.work()
    assert world.row(name).state == "running"
    for _ in range(4):
        pass_time(world, seconds=200)
        heard(world, world.now())
        engine.work()
    assert world.row(name).state == "paused"
    assert decisions(world, name)[-1] == ("pause", "INCONCLUSIVE")
    assert "latency_ms" in str(world.row(name).reason)
    world.do(steer.resume, name)
    engine.work()
    assert (world.row(name).state, world.row(name).wave) == ("running", 1)


def test_failed_gate_pauses_once_where_the_policy_says_so(world: World, engine: Engine) -> None:
    name = world.create(policy(HALF, ALL, on_failure=OnFailure.PAUSE))
    engine.work()
    became(world, name, "failed", count=5)
    engine.work()
    assert world.row(name).state == "paused"
    world.do(steer.resume, name)
    engine.work()
    engine.work()
    # overruled in this wave, asked again in the next
    assert decisions(world, name)[-3:] == [
        ("resume", None),
        ("open_wave", "PASS"),
        ("pause", "FAIL"),
    ]


def test_wave_keeps_the_verdicts_that_decided_about_it(world: World, engine: Engine) -> None:
    strict = (InstallGate(max_failure_rate=0.02),)
    half, rest = (replace(wave, gates=strict, min_sample=3) for wave in (HALF, ALL))
    name = world.create(policy(half, rest))
    engine.work()
    became(world, name, "healthy", count=1)
    engine.work()
    assert waves(world, name) == [("WAIT", "sample", False)]
    became(world, name, "healthy", count=4)
    engine.work()
    assert waves(world, name) == [("PASS", "install", True), ("WAIT", "unreached", False)]
    became(world, name, "failed", count=5)
    engine.work()
    assert waves(world, name) == [("PASS", "install", True), ("FAIL", "install", True)]
    failure = world.row(name).failure
    assert failure is not None
    assert (failure["word"], failure["wave"]) == ("FAIL", 1)


def test_wave_of_a_paused_rollout_stays_open_with_what_paused_it(
    world: World, engine: Engine
) -> None:
    name = world.create(policy(HALF, ALL, on_failure=OnFailure.PAUSE))
    engine.work()
    became(world, name, "failed", count=5)
    engine.work()
    assert waves(world, name) == [("FAIL", "install", False)]
    world.do(steer.abort, name)
    assert waves(world, name) == [("FAIL", "install", True)]


def test_denied_version_is_rolled_back(world: World, engine: Engine) -> None:
    name = world.create(policy(HALF, ALL))
    engine.work()
    with world.db.write() as session:
        named = {"model": "detector", "version": "1.1.0", "reason": "too slow"}
        deny(session, **named, actor=AUTHOR, now=world.now())
    engine.work()
    assert world.row(name).state == "rolled_back"
    assert "denied by an operator: too slow" in str(world.row(name).reason)


def test_unused_leases_fall_back_and_silent_devices_count(world: World, engine: Engine) -> None:
    soon = Deadlines(silent_s=600, lease_s=300)
    name = world.create(policy(HALF, ALL, pace=Pace(max_in_flight=9), deadlines=soon))
    engine.work()
    became(world, name, "leased")
    became(world, name, "switched", count=2)
    heard(world, world.now())
    pass_time(world, seconds=400)
    engine.work()
    assert outcomes(world, name) == ["expired", "switched", "switched"]
    pass_time(world, seconds=300)
    engine.work()
    assert outcomes(world, name) == ["expired", "silent", "silent"]


def test_device_that_is_heard_is_not_silent(world: World, engine: Engine) -> None:
    name = world.create(policy(HALF, ALL, deadlines=Deadlines(silent_s=600)))
    engine.work()
    became(world, name, "switched")
    pass_time(world, seconds=700)
    heard(world, world.now())
    engine.work()
    assert outcomes(world, name) == ["switched"]


def reports_every(world: World, seconds: int | None, *names: str) -> None:
    with world.db.write() as session:
        these = update(DeviceRow).where(DeviceRow.name.in_(names)) if names else update(DeviceRow)
        session.execute(these.values(check_in_s=seconds))


def run_before(world: World, version: str = "1.0.0") -> None:
    """Have the group run a version to which it can go back."""
    named = {"group": "cams", "model": "detector", "version": version}
    with world.db.write() as session:
        snapshot = world.snapshot(session)
        baselines.set_baseline(session, snapshot, **named, actor=AUTHOR, now=world.now())


def test_each_device_is_silent_by_its_own_interval(world: World, engine: Engine) -> None:
    name = world.create(policy(HALF, ALL, deadlines=Deadlines(silent_s=600)))
    engine.work()
    became(world, name, "switched", count=3)
    heard(world, world.now())
    reports_every(world, 60, "cam-0")
    reports_every(world, 3600, "cam-1")
    reports_every(world, None, "cam-2")  # told before that was noted: the server's, 60 s
    pass_time(world, seconds=700)
    engine.work()
    assert outcomes(world, name) == ["silent", "silent", "switched"]
    pass_time(world, seconds=7200 - 700)
    engine.work()
    assert outcomes(world, name) == ["silent", "silent", "silent"]


def test_a_server_that_started_again_listens_for_two_reports_of_each_device(world: World) -> None:
    name = world.create(policy(HALF, ALL, deadlines=Deadlines(silent_s=600)))
    heard(world, world.now())
    became(world, name, "switched", count=2)
    reports_every(world, 60, "cam-0")
    reports_every(world, 3600, "cam-1")
    pass_time(world, days=1)
    passed = 0.0
    engine = Engine(world.db, Fresh(world), world.now, check_in_s=60, steady=lambda: passed)
    for seconds, expected in ((599, "switched"), (1, "silent"), (6600, "silent")):
        engine.work()
        passed += seconds
        pass_time(world, seconds=seconds)
        engine.work()
        assert outcomes(world, name)[0] == expected
    assert outcomes(world, name) == ["silent", "silent"]


def test_a_rollback_waits_for_two_reports_of_the_slowest_device(
    world: World, engine: Engine
) -> None:
    run_before(world)
    name = world.create(policy(HALF, ALL, deadlines=Deadlines(silent_s=600)))
    engine.work()
    became(world, name, "healthy", count=2)
    reports_every(world, 60, "cam-0")
    reports_every(world, 3600, "cam-1")
    world.do(steer.roll_back, name)
    heard(world, world.now())
    pass_time(world, seconds=700)
    engine.work()
    assert world.row(name).state == "rolling_back"
    pass_time(world, seconds=7200 - 701)
    engine.work()
    assert world.row(name).state == "rolling_back"
    pass_time(world, seconds=2)
    engine.work()
    assert world.row(name).state == "rolled_back"


def test_a_rollback_does_not_wait_for_devices_that_are_silent(world: World, engine: Engine) -> None:
    run_before(world)
    name = world.create(policy(HALF, ALL, deadlines=Deadlines(silent_s=600)))
    engine.work()
    became(world, name, "healthy", count=2)
    reports_every(world, 60, "cam-0")
    reports_every(world, 86_400, "cam-1")
    heard(world, world.now() - timedelta(days=3))
    world.do(steer.roll_back, name)
    engine.work()
    assert world.row(name).state == "rolled_back"
    with world.db.read() as session:
        last = select(DecisionRow.sentence).where(DecisionRow.action == "rolled_back")
        assert "2 devices have been silent lately" in session.scalars(last).one()


def test_a_gate_on_a_metric_waits_for_two_reports_of_the_slowest_device(
    world: World, engine: Engine
) -> None:
    gate = MetricGate(name="speed", metric="latency_ms")
    recipe = policy(Wave("half", percent=50, gates=(gate,)), ALL, deadlines=Deadlines(silent_s=60))
    name = world.create(recipe)
    engine.work()
    became(world, name, "healthy", count=2)
    reports_every(world, 60, "cam-0")
    reports_every(world, 3600, "cam-1")
    for _ in range(7):
        pass_time(world, seconds=1000)
        heard(world, world.now())
        engine.work()
        assert world.row(name).state == "running"
    for _ in range(9):
        pass_time(world, seconds=1000)
        heard(world, world.now())
        engine.work()
    assert world.row(name).state == "paused"


def test_nobody_is_silent_because_the_clock_jumped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(world.db, Fresh(world), world.now, check_in_s=60)
    name = world.create(policy(HALF, ALL, deadlines=Deadlines(silent_s=600)))
    engine.work()
    became(world, name, "switched")
    heard(world, world.now())
    pass_time(world, days=400)
    engine.work()
    pass_time(world, days=-800)
    engine.work()
    assert outcomes(world, name) == ["switched"]
    assert world.row(name).state == "running"


def test_an_engine_that_looks_seldom_takes_time_that_passes_for_no_jump(world: World) -> None:
    passed = 0.0
    often, seldom = (
        Engine(world.db, Fresh(world), world.now, steady=lambda: passed) for _ in range(2)
    )
    began = often.moment(), seldom.moment()
    for _ in range(3):
        passed += 30
        pass_time(world, seconds=30)
        often.moment()
    now = often.moment(), seldom.moment()
    assert [m.listening_since for m in now] == [m.listening_since for m in began]
    pass_time(world, seconds=61)  # it was set
    jumped = often.moment(), seldom.moment()
    assert [m.listening_since for m in jumped] == [world.now()] * 2


def test_of_engines_that_started_at_different_times_one_tells_what_a_wave_waits_for(
    world: World, engine: Engine
) -> None:
    name = world.create(policy(replace(HALF, soak_s=600), ALL))
    engine.work()
    became(world, name, "healthy", count=10)
    engine.work()
    pass_time(world, seconds=60)
    later = Engine(world.db, Fresh(world), world.now, check_in_s=600)
    plans = [
        [a for a in one.planned(int(name[1:]), one.moment()) if isinstance(a, Tell)]
        for one in (engine, later)
    ]
    moved = [replace(tell, verdict={**tell.verdict, "sentence": "other"}) for tell in plans[1]]
    assert moved
    for tell in [*plans[1], *moved]:
        with world.db.write() as session:
            execute(session, tell, world.snapshot(session), now=world.now())
    with world.db.read() as session:
        row = session.get_one(RolloutWaveRow, (int(name[1:]), 0))
        assert row.verdict == plans[1][0].verdict


def test_scheduled_rollout_starts_and_one_past_its_end_pauses(world: World, engine: Engine) -> None:
    start, end = (world.now() + timedelta(hours=n) for n in (1, 5))
    name = world.create(policy(HALF, ALL), start_at=start, end_at=end)
    engine.work()
    assert world.row(name).state == "scheduled"
    pass_time(world, hours=2)
    engine.work()
    assert (world.row(name).state, world.row(name).wave) == ("running", 0)
    pass_time(world, hours=4)
    engine.work()
    assert world.row(name).state == "paused"
    world.do(steer.resume, name)
    engine.work()
    assert (world.row(name).state, world.row(name).end_at) == ("running", None)


def test_first_percent_of_a_small_group_is_one_device(world: World, engine: Engine) -> None:
    name = world.create(policy(Wave("first", percent=1, gates=INSTALL), ALL))
    engine.work()
    assert len(world.told("1.1.0")) == 1
    assert world.row(name).wave == 0


def test_completed_rollout_is_the_baseline_of_who_comes_late(world: World, engine: Engine) -> None:
    name = world.create(policy(ALL))
    engine.work()
    became(world, name, "healthy", count=10)
    engine.work()
    assert world.row(name).state == "completed"
    with world.db.read() as session:
        (baseline,) = baselines.list_baselines(session, group="cams")
    assert (baseline.version, baseline.set_by) == ("1.1.0", "server")
    assert len(world.told("1.1.0")) == 10


def test_device_that_no_variant_fits_is_not_waited_for(world: World, engine: Engine) -> None:
    with world.db.write() as session:
        odd = update(DeviceRow).where(DeviceRow.name == "cam-9")
        session.execute(odd.values(facts={"runtime.openvino": "2026.1"}))
    name = world.create(policy(ALL))
    engine.work()
    became(world, name, "healthy", count=9)
    engine.work()
    assert world.row(name).state == "completed"


def test_engines_that_race_take_each_step_once(world: World) -> None:
    name = world.create(policy(HALF, ALL))
    engine_s = [Engine(world.db, Fresh(world), world.now, check_in_s=60) for _ in range(4)]
    became(world, name, "healthy", count=10)
    threads = [threading.Thread(target=one.work) for one in engine_s for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    engine_s[0].work()
    assert decisions(world, name) == [
        ("create", None),
        ("start", None),
        ("open_wave", "PASS"),
        ("open_wave", "PASS"),
        ("complete", "PASS"),
    ]


def test_step_from_an_older_generation_is_not_taken(world: World, engine: Engine) -> None:
    name = world.create(policy(HALF, ALL))
    moment = engine.moment()
    (step,) = engine.planned(int(name[1:]), moment)
    world.do(steer.pause, name)
    with pytest.raises(RolloutMoved), world.db.write() as session:
        execute(session, step, world.snapshot(session), now=world.now())
    assert world.row(name).wave == -1


def test_one_rollout_that_cannot_be_looked_after_does_not_stop_the_others(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.group("others", "line=a")
    broken, fine = world.create(policy(ALL)), world.create(policy(ALL), group="others")
    planned = engine.planned

    def fails(rollout: int, moment: Any) -> Any:
        if rollout == int(broken[1:]):
            raise RuntimeError("out of luck")
        return planned(rollout, moment)

    monkeypatch.setattr(engine, "planned", fails)
    engine.work()
    assert (world.row(broken).wave, world.row(fine).wave) == (-1, 0)

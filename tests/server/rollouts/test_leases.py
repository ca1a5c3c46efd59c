"""Paced rollouts: never more in flight than allowed, however many ask at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import select, update

from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.fleet.leases import FleetLeases
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.registry.service import deny
from pilotwave_server.registry.trust import TrustStore
from pilotwave_server.rollouts import leases
from pilotwave_server.rollouts.assignments import pins
from pilotwave_server.rollouts.operate import steer
from pilotwave_server.rollouts.policies.policy import Pace
from pilotwave_server.rollouts.tables import RolloutDeviceRow
from tests.server.rollouts.worlds_db import AUTHOR, World, paced


def started(world: World, **limits: Any) -> str:
    """A rollout at this pace whose one wave is open."""
    name = world.create(paced(**limits))
    world.do(steer.next_wave, name)
    return name


def grant(world: World, name: str, numbers: range | list[int], pace: Pace, size: int = 10) -> int:
    """How many of these devices (by number of row) get a lease."""
    with world.db.write() as session:
        return len(
            leases.grant(
                session,
                rollout_id=int(name[1:]),
                pace=pace,
                device_ids=list(numbers),
                group_size=size,
                now=world.now(),
            )
        )


def became(world: World, name: str, outcome: str, *, most: int = 100) -> None:
    """What a check-in does with the devices that hold a lease."""
    d = RolloutDeviceRow
    with world.db.write() as session:
        held = select(d.device_id).where(d.rollout_id == int(name[1:]), d.outcome == "leased")
        ids = list(session.scalars(held.order_by(d.device_id).limit(most)))
        here = d.rollout_id == int(name[1:]), d.device_id.in_(ids)
        session.execute(update(d).where(*here).values(outcome=outcome, changed_at=world.now()))
        leases.revise(session, ids)


def test_no_more_are_in_flight_than_allowed(world: World) -> None:
    name, pace = started(world, max_in_flight=3), Pace(max_in_flight=3)
    assert grant(world, name, range(1, 11), pace) == 3
    assert grant(world, name, range(1, 11), pace) == 0
    assert world.told("1.1.0") == {0, 1, 2}
    became(world, name, "switched")
    assert grant(world, name, range(1, 11), pace) == 0
    with world.db.write() as session:
        session.execute(update(RolloutDeviceRow).values(outcome="healthy"))
    assert grant(world, name, range(1, 11), pace) == 3
    assert world.told("1.1.0") == {0, 1, 2, 3, 4, 5}


def test_no_more_are_let_in_a_minute_than_allowed(world: World, clock: Any) -> None:
    name, pace = started(world, max_per_minute=2), Pace(max_per_minute=2)
    assert grant(world, name, range(1, 11), pace) == 2
    became(world, name, "healthy")
    clock.advance(seconds=59)
    assert grant(world, name, range(1, 11), pace) == 0
    clock.advance(seconds=2)
    assert grant(world, name, range(1, 11), pace) == 2


def test_clock_that_jumped_back_does_not_stop_the_rollout(world: World, clock: Any) -> None:
    name, pace = started(world, max_per_minute=2), Pace(max_per_minute=2)
    clock.advance(days=1)
    assert grant(world, name, range(1, 11), pace) == 2
    clock.advance(days=-1)
    assert grant(world, name, range(1, 11), pace) == 2


@pytest.mark.parametrize(
    ("healthy", "capacity"), [(0, 10), (9, 10), (10, 20), (29, 20), (30, 40), (69, 40), (70, 80)]
)
def test_ramp_doubles_each_time_as_many_became_healthy(healthy: int, capacity: int) -> None:
    assert leases.ramp(Pace(ramp_start=10, ramp_factor=2.0), healthy) == capacity


@pytest.mark.parametrize("factor", [1.0, 1.0001, 1.5, 1000.0])
def test_ramp_always_comes_to_an_end(factor: float) -> None:
    assert leases.ramp(Pace(ramp_start=1, ramp_factor=factor), leases.MANY_HEALTHY) >= 1


def test_ramp_lets_more_in_as_devices_become_healthy(world: World) -> None:
    name, pace = started(world, ramp_start=1), Pace(ramp_start=1)
    assert grant(world, name, range(1, 11), pace) == 1
    became(world, name, "healthy")
    assert grant(world, name, range(1, 11), pace) == 2
    became(world, name, "healthy")
    assert grant(world, name, range(1, 11), pace) == 4


def test_so_many_of_the_group_stay_available(world: World) -> None:
    name, pace = started(world, min_available=0.8), Pace(min_available=0.8)
    assert grant(world, name, range(1, 11), pace) == 2
    became(world, name, "failed", most=1)
    assert grant(world, name, range(1, 11), pace) == 0
    became(world, name, "healthy")
    assert grant(world, name, range(1, 11), pace) == 1


@pytest.mark.parametrize("size", [1, 2, 9])
def test_small_group_goes_one_by_one_where_its_share_leaves_room_for_none(
    world: World, size: int
) -> None:
    name, pace = started(world, min_available=0.9), Pace(min_available=0.9)
    assert grant(world, name, range(1, size + 1), pace, size=size) == 1
    assert grant(world, name, range(1, size + 1), pace, size=size) == 0
    became(world, name, "failed")
    assert grant(world, name, range(1, size + 1), pace, size=size) == 0
    world.do(steer.retry_failed, name)
    assert grant(world, name, range(1, size + 1), pace, size=size) == 1


def test_device_that_failed_gets_no_second_lease_until_it_is_asked_to_retry(world: World) -> None:
    name, pace = started(world, max_in_flight=1), Pace(max_in_flight=1)
    assert grant(world, name, [1], pace) == 1
    became(world, name, "failed")
    assert grant(world, name, [1], pace) == 0
    assert world.told("1.1.0") == set()
    _, count = world.do(steer.retry_failed, name)
    assert count == 1
    assert grant(world, name, [1], pace) == 1
    with world.db.read() as session:
        device = session.get_one(DeviceRow, 1)
        assert device.attempts == {"detector": 1}


def test_lease_that_was_not_used_ends_with_the_pause_and_is_given_anew(world: World) -> None:
    name, pace = started(world, max_in_flight=2), Pace(max_in_flight=2)
    grant(world, name, [1, 2], pace)
    became(world, name, "switched", most=1)
    world.do(steer.pause, name)
    assert world.told("1.1.0") == {0}
    assert grant(world, name, [2, 3], pace) == 0
    world.do(steer.resume, name)
    assert grant(world, name, [2, 3], pace) == 1
    assert world.told("1.1.0") == {0, 1}


def test_many_who_grant_at_once_give_no_more_than_allowed(world: World) -> None:
    name, pace = started(world, max_in_flight=4), Pace(max_in_flight=4)
    given: list[int] = []

    def work(first: int) -> None:
        given.append(grant(world, name, [first, first + 1, first + 2], pace))

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 4, 7, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(given) == 4
    assert len(world.told("1.1.0")) == 4


@pytest.fixture
def state(world: World) -> FleetState:
    """One server process's memory."""
    found = FleetState(world.db, TrustStore(world.db, world.registry.data_dir))
    found.refresh()
    return found


def ask(world: World, state: FleetState, *numbers: int) -> set[int]:
    """Have devices poll, and the desk answer; those with a lease."""
    state.refresh()
    desk = FleetLeases(world.db, state, world.now)
    for record in state.load([f"cam-{n}" for n in numbers]).values():
        record.order = state.order(record, state.snapshot)
        if record.wants:
            desk.ask(record, 0.0)
    desk.work()
    return world.told("1.1.0")


def test_device_that_polls_is_let_in(world: World, state: FleetState) -> None:
    started(world, max_in_flight=2)
    assert ask(world, state, 1, 2, 3) == {1, 2}
    assert ask(world, state, 1, 2, 3) == {1, 2}


def test_paced_rollout_before_its_first_wave_lets_nobody_in(
    world: World, state: FleetState
) -> None:
    world.create(paced(max_in_flight=2))
    assert ask(world, state, 1, 2, 3) == set()


def test_those_that_failed_do_not_keep_others_out(world: World, state: FleetState) -> None:
    name = started(world, max_in_flight=1)
    assert ask(world, state, 1) == {1}
    became(world, name, "failed")
    assert ask(world, state, 1, 2) == {2}


def test_pinned_device_gets_no_lease(world: World, state: FleetState) -> None:
    started(world, max_in_flight=2)
    with world.db.write() as session:
        told = {"name": "cam-1", "model": "detector", "version": "1.0.0", "reason": "test"}
        snapshot = world.snapshot(session)
        pins.pin(session, snapshot, **told, actor=AUTHOR, now=world.now())
    assert ask(world, state, 1, 2) == {2}


def test_nobody_is_let_in_to_a_version_that_was_denied(world: World, state: FleetState) -> None:
    name = started(world, max_in_flight=2)
    with world.db.write() as session:
        told = {"model": "detector", "version": "1.1.0", "reason": "burns"}
        deny(session, **told, actor=AUTHOR, now=world.now())
    assert ask(world, state, 1, 2) == set()
    with world.db.read() as session:
        assert leases.count(session, int(name[1:]), Pace(), now=world.now()).in_flight == 0


def test_rollout_without_pace_asks_nobody_to_wait(world: World, state: FleetState) -> None:
    name = world.create(paced())
    world.do(steer.next_wave, name)
    state.refresh()
    records = state.load(["cam-1"])
    state.order(records["cam-1"], state.snapshot)
    assert records["cam-1"].wants == ()

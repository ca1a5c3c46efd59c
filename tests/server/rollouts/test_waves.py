"""Who is in the open waves: the same by Python and by SQL, uniform, sticky, never shrinking."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from pilotwave_server.devices.tables import PRIME, DeviceRow, draw_bucket
from pilotwave_server.rollouts.assignments.snapshot import RunningRollout
from pilotwave_server.rollouts.policies.policy import Policy, Wave
from pilotwave_server.rollouts.tables import RolloutRow
from pilotwave_server.rollouts.waves import (
    BadSalt,
    Salt,
    draw_salt,
    nth_position,
    opened_threshold,
    percent_threshold,
    position,
    position_sql,
    read_salt,
    takers,
)
from tests.server.rollouts.worlds_db import World

salts = st.builds(Salt, st.integers(1, PRIME - 1), st.integers(0, PRIME - 1))
buckets = st.integers(0, PRIME - 1)
percents = st.floats(0, 100, allow_nan=False)
NOBODY: frozenset[int] = frozenset()


def running(salt: Salt, threshold: int, **given: object) -> RunningRollout:
    named = {"multiplier": salt.multiplier, "offset": salt.offset, "threshold": threshold}
    return RunningRollout("r1", 1, 1, "detector", "1.0.0", **{**named, **given})  # type: ignore[arg-type]  # fields by name


@given(salts, buckets, buckets)
def test_no_two_devices_share_a_place(salt: Salt, one: int, other: int) -> None:
    same = position(*salt, one) == position(*salt, other)
    assert same == (one == other)
    assert 0 <= position(*salt, one) < PRIME


@given(salts, buckets, percents, percents)
def test_a_wave_never_loses_a_device_when_the_next_opens(
    salt: Salt, bucket: int, one: float, other: float
) -> None:
    small, large = sorted([percent_threshold(one), percent_threshold(other)])
    groups = frozenset({1})
    if running(salt, small).includes(bucket, groups, "cam"):
        assert running(salt, large).includes(bucket, groups, "cam")


@given(salts, buckets)
def test_hundred_percent_takes_each_device_of_the_group_and_none_outside(
    salt: Salt, bucket: int
) -> None:
    everyone = running(salt, percent_threshold(100), named=frozenset({"cam"}))
    assert everyone.includes(bucket, frozenset({1}), "cam")
    assert not everyone.includes(bucket, frozenset({2}), "cam")


@given(salts, buckets)
def test_nothing_open_takes_nobody(salt: Salt, bucket: int) -> None:
    assert not running(salt, percent_threshold(0)).includes(bucket, frozenset({1}), "cam")


def test_waves_are_as_large_as_their_percentage() -> None:
    names = [draw_bucket() for _ in range(20_000)]
    for percent in (1, 10, 50):
        rollout = running(draw_salt(), percent_threshold(percent))
        share = sum(rollout.includes(b, frozenset({1}), "") for b in names) / len(names)
        assert share == pytest.approx(percent / 100, abs=0.025)


def test_being_early_in_one_rollout_says_nothing_of_the_next() -> None:
    names = [draw_bucket() for _ in range(20_000)]
    first, second = (running(draw_salt(), percent_threshold(10)) for _ in range(2))
    groups = frozenset({1})
    early = [b for b in names if first.includes(b, groups, "")]
    again = sum(second.includes(b, groups, "") for b in early) / len(early)
    assert again == pytest.approx(0.1, abs=0.06)


def test_canaries_are_taken_by_name_or_by_group_within_the_rollouts_group() -> None:
    rollout = running(Salt(1, 0), 0, canaries=frozenset({-100}), named=frozenset({"cam-7"}))
    assert rollout.includes(5, frozenset({1, -100}), "cam-1")
    assert rollout.includes(5, frozenset({1}), "cam-7")
    assert not rollout.includes(5, frozenset({-100}), "cam-7")
    assert not rollout.includes(5, frozenset({1}), "cam-1")


@given(salts)
def test_salt_is_read_as_it_is_shown(salt: Salt) -> None:
    assert read_salt(str(salt)) == salt


@pytest.mark.parametrize(
    "text", ["", "1", "0.5", f"{PRIME}.1", f"1.{PRIME}", "1.-1", "x.y", "1.1.1"]
)
def test_salt_that_no_preview_shows_is_refused(text: str) -> None:
    with pytest.raises(BadSalt):
        read_salt(text)


def thought_of(threshold: int = 0) -> RolloutRow:
    salt = draw_salt()
    return RolloutRow(multiplier=salt.multiplier, offset=salt.offset, threshold=threshold)


def test_database_computes_the_same_places(world: World) -> None:
    rollout = thought_of()
    with world.db.read() as session:
        rows = session.execute(select(DeviceRow.bucket, position_sql(rollout))).all()
    salt = rollout.multiplier, rollout.offset
    assert all(place == position(*salt, bucket) for bucket, place in rows)
    assert len(rows) == 10


def test_nth_place_is_found_in_the_database(world: World) -> None:
    rollout = thought_of()
    with world.db.read() as session:
        buckets = session.scalars(select(DeviceRow.bucket))
        places = sorted(position(rollout.multiplier, rollout.offset, b) for b in buckets)
        theirs = takers(session, world.the_group(session), "detector")
        assert [nth_position(session, theirs, rollout, n) for n in (1, 3, 10)] == [
            places[0],
            places[2],
            places[9],
        ]
        assert nth_position(session, theirs, rollout, 11) == places[9]


def test_count_wave_opens_for_that_many_and_never_closes_on_others(world: World) -> None:
    policy = Policy("p", (Wave("three", count=3), Wave("two", count=2)))
    rollout = thought_of()
    with world.db.read() as session:
        group = world.the_group(session)
        rollout.threshold = opened_threshold(session, group, rollout, policy, 0)
        inside = select(DeviceRow.id).where(position_sql(rollout) < rollout.threshold)
        assert len(session.scalars(inside).all()) == 3
        assert opened_threshold(session, group, rollout, policy, 1) == rollout.threshold

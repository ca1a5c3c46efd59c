"""Decide which devices a rollout's open waves take: a salted hash, no row per device.

A device's position is `(bucket * multiplier + offset) mod PRIME`, with the salt drawn anew for each
rollout: pairwise independent (Carter and Wegman, "Universal classes of hash functions", 1979), so
being early in one rollout says nothing of the next. A device's bucket is drawn by chance when it
enrols, so that nobody can choose names that go together. The same arithmetic runs in SQL. Percent
and count waves take the positions below the rollout's threshold, which only ever rises: a wave
never shrinks, and a device that joins late finds its place by itself.

When a wave opens is the engine's affair; who is in the rollout's group, the group's.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar, NamedTuple

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import PRIME, DeviceRow, PinRow
from pilotwave_server.errors import Invalid
from pilotwave_server.groups.service import in_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.tables import RolloutRow

MAX_WAVES = 100


class Salt(NamedTuple):
    """What makes one rollout's order of devices differ from another's."""

    multiplier: int
    offset: int

    def __str__(self) -> str:
        return f"{self.multiplier}.{self.offset}"


class BadSalt(Invalid):
    code: ClassVar[str] = "bad_salt"


def read_salt(text: str) -> Salt:
    """Return the salt that a preview showed, as `<multiplier>.<offset>`. BadSalt."""
    multiplier, _, offset = text.partition(".")
    if multiplier.isdecimal() and offset.isdecimal() and len(text) < 24:
        salt = Salt(int(multiplier), int(offset))
        if 1 <= salt.multiplier < PRIME and salt.offset < PRIME:
            return salt
    raise BadSalt("expected a salt as a preview shows it")


def draw_salt() -> Salt:
    """Return a new salt, which nobody can foresee."""
    return Salt(1 + secrets.randbelow(PRIME - 1), secrets.randbelow(PRIME))


def position(multiplier: int, offset: int, bucket: int) -> int:
    """Return a bucket's place in a rollout's order, from 0 to PRIME - 1."""
    return (bucket * multiplier + offset) % PRIME


def position_sql(order: RolloutRow | Salt) -> ColumnElement[int]:
    """The same over the devices' table. The product stays below 2^62."""
    return (DeviceRow.bucket * order.multiplier + order.offset) % PRIME


def percent_threshold(percent: float) -> int:
    """Return the threshold that takes `percent` of all positions, rounded up; 100 takes each."""
    return min(PRIME, math.ceil(Fraction(percent) * PRIME / 100))


def not_pinned(model: str) -> ColumnElement[bool]:
    """Over devices: those that no operator has pinned to a version of the model. A rollout passes
    pinned devices by, so its waves are measured without them."""
    return ~exists().where(PinRow.device_id == DeviceRow.id, PinRow.model == model)


def takers(session: Session, group: GroupRow, model: str) -> tuple[ColumnElement[bool], ...]:
    """The WHERE expressions over devices that a rollout of the model to the group can take."""
    return DeviceRow.state == "enrolled", in_group(session, group), not_pinned(model)


Devices = Sequence[ColumnElement[bool]]
"""The devices for which all of these hold."""


def nth_position(
    session: Session, devices: Devices, order: RolloutRow | Salt, n: int
) -> int | None:
    """The `n`-th smallest position (from 1) among the devices, or the largest.

    None when there is no such device. It reads the devices once.
    """
    place = position_sql(order).label("place")
    mine = select(place).where(*devices)
    nth = session.scalar(mine.order_by("place").offset(n - 1).limit(1))
    if nth is None:
        nth = session.scalar(mine.order_by(place.desc()).limit(1))
    return nth


def opened_threshold(
    session: Session, group: GroupRow, rollout: RolloutRow, policy: Policy, index: int
) -> int:
    """Return the rollout's threshold once wave `index` is open: never below the present one. That
    of a shadow wave, which takes no device to the version, is its own."""
    wave = policy.waves[index]
    devices = takers(session, group, rollout.model)
    own = threshold_of(session, devices, rollout, percent=wave.percent, count=wave.count)
    return own if policy.in_shadow(index) else max(rollout.threshold, own)


def threshold_of(
    session: Session,
    devices: Devices,
    order: RolloutRow | Salt,
    *,
    percent: float | None,
    count: int | None,
) -> int:
    """Return the threshold that takes so many of the devices; 0 where neither is said."""
    if percent is not None:
        bound = percent_threshold(percent)
        if bound == PRIME or _takes_anyone(session, devices, order, bound):
            return bound
        # the first percent of a small group is one device: none would prove nothing
        return max(bound, _upto(session, devices, order, 1))
    return _upto(session, devices, order, count) if count is not None else 0


def _upto(session: Session, devices: Devices, order: RolloutRow | Salt, n: int) -> int:
    nth = nth_position(session, devices, order, n)
    return 0 if nth is None else nth + 1


def _takes_anyone(session: Session, devices: Devices, order: RolloutRow | Salt, bound: int) -> bool:
    query = select(DeviceRow.id).where(*devices, position_sql(order) < bound).limit(1)
    return session.scalar(query) is not None


def canary_group_id(rollout_id: int, index: int) -> int:
    """The number of the unnamed group that the selector of canary wave `index` makes.

    Groups with a name count upwards from 1.
    """
    return -(rollout_id * MAX_WAVES + index)

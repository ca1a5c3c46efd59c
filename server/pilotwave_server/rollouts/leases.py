"""Let devices of a paced rollout in, no faster than its policy allows; say who was let in.

A lease is a row of `rollout_devices`: the device may take the version now. It lasts until the
device's outcome is known, or until the engine takes back one that was not used. Whether a device
is included, and would take the version at all, is the caller's to have checked.

Whoever changes a row into or out of `KEEPS` calls `revise` for its device in the same transaction,
and holds the fleet's row (`db.lock_fleet`) from before its first lock on a device or a rollout.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.orm import Session

from pilotwave_server.db import lock_fleet, next_revision
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.rollouts.policies.policy import Pace
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.states import OFFERING, RolloutState
from pilotwave_server.rollouts.tables import RolloutDeviceRow, RolloutRow

LEASED, SWITCHED, HEALTHY, SILENT = "leased", "switched", "healthy", "silent"
FAILED, ROLLED_BACK, EXPIRED = "failed", "rolled_back", "expired"
RETURNED = "returned"
SHADOW_LEASED, SHADOWING = "shadow_leased", "shadowing"
IN_SHADOW = (SHADOW_LEASED, SHADOWING)
IN_FLIGHT = (LEASED, SWITCHED, SHADOW_LEASED)
UNUSED = (LEASED, SHADOW_LEASED)
TOOK_IT = (SWITCHED, HEALTHY, SILENT)
KEEPS = (LEASED, *TOOK_IT)
DID_NOT = (FAILED, ROLLED_BACK)
OUTCOMES = (*KEEPS, *IN_SHADOW, *DID_NOT, EXPIRED, RETURNED)

# Standing in for "all" where a ramp has long outgrown every other limit.
MANY_HEALTHY = 100_000
NO_LIMIT = 100_000
MINUTE = timedelta(seconds=60)
_TAKES_BACK = [str(s) for s in (*OFFERING, RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK)]
_TRYING = [str(s) for s in OFFERING]
_KEEPING = [str(s) for s in (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ABORTED)]


def read_leases(session: Session, device_ids: Collection[int]) -> dict[int, frozenset[int]]:
    """By device, the rollouts whose version it may take or took; devices without one are absent.

    Both are numbers of rows.
    """
    d, r = RolloutDeviceRow, RolloutRow
    query = (
        select(d.device_id, d.rollout_id)
        .join(r, r.id == d.rollout_id)
        .where(d.device_id.in_(device_ids), d.outcome.in_(KEEPS), r.state.in_(_KEEPING))
    )
    found: dict[int, set[int]] = defaultdict(set)
    for device, rollout in session.execute(query):
        found[device].add(rollout)
    return {device: frozenset(rollouts) for device, rollouts in found.items()}


Took = frozenset[tuple[int, str | None]]
"""Rollouts, by row number, with what the device ran before."""


def read_took(session: Session, device_ids: Collection[int]) -> dict[int, Took]:
    """By device, the rollouts that take it back should they be rolled back: it took their version,
    and was not heard to leave it. A device on its way back is among them until it is well there;
    once a rollout is over, a device is only by its last report."""
    d, r, m = RolloutDeviceRow, RolloutRow, DeviceModelRow
    over = r.state == str(RolloutState.ROLLED_BACK)
    runs_it = and_(d.left_at.is_(None), or_(~over, m.current_version == r.version))
    coming_back = and_(m.current_version == d.came_from, m.state == ROLLED_BACK)
    query = (
        select(d.device_id, d.rollout_id, d.came_from)
        .join(r, r.id == d.rollout_id)
        .outerjoin(m, and_(m.device_id == d.device_id, m.model == r.model))
        .where(d.device_id.in_(device_ids), d.outcome.in_(TOOK_IT), r.state.in_(_TAKES_BACK))
        .where(or_(runs_it, coming_back))
    )
    found: dict[int, set[tuple[int, str | None]]] = defaultdict(set)
    for device, rollout, came_from in session.execute(query):
        found[device].add((rollout, came_from))
    return {device: frozenset(took) for device, took in found.items()}


def read_shadows(session: Session, device_ids: Collection[int]) -> dict[int, Took]:
    """By device, the rollouts that it may try the version of in shadow, each with the version that
    it ran when it was let in; devices without one are absent."""
    d, r = RolloutDeviceRow, RolloutRow
    query = (
        select(d.device_id, d.rollout_id, d.came_from)
        .join(r, r.id == d.rollout_id)
        .where(d.device_id.in_(device_ids), d.outcome.in_(IN_SHADOW), r.state.in_(_TRYING))
    )
    found: dict[int, set[tuple[int, str | None]]] = defaultdict(set)
    for device, rollout, came_from in session.execute(query):
        found[device].add((rollout, came_from))
    return {device: frozenset(shadows) for device, shadows in found.items()}


def read_serving(session: Session, device_ids: Collection[int], model: str) -> dict[int, str]:
    """By device, the version of a model that it reports to run, where it is well on it."""
    m = DeviceModelRow
    query = select(m.device_id, m.current_version).where(
        m.device_id.in_(device_ids), m.model == model, m.state == HEALTHY
    )
    return {device: version for device, version in session.execute(query) if version is not None}


def revise(session: Session, device_ids: Collection[int]) -> None:
    """Have each server process read these devices again, because their leases changed."""
    if device_ids:
        session.execute(
            update(DeviceRow)
            .where(DeviceRow.id.in_(device_ids))
            .values(revision=next_revision(session)),
            execution_options={"synchronize_session": False},
        )


class LeaseCounts(NamedTuple):
    """What the pace looks at: devices by where they are, leases of the last minute."""

    in_flight: int = 0
    failed: int = 0
    healthy: int = 0
    last_minute: int = 0


def count(session: Session, rollout_id: int, pace: Pace, *, now: datetime) -> LeaseCounts:
    """Count what `pace` asks for. Healthy devices are counted up to `MANY_HEALTHY`."""
    d = RolloutDeviceRow
    mine = d.rollout_id == rollout_id
    some = (*IN_FLIGHT, *DID_NOT, SILENT)
    by_outcome = dict(
        session.execute(
            select(d.outcome, func.count()).where(mine, d.outcome.in_(some)).group_by(d.outcome)
        )
        .tuples()
        .all()
    )
    healthy = last_minute = 0
    if pace.ramp_start:
        few = select(d.device_id).where(mine, d.outcome == HEALTHY).limit(MANY_HEALTHY).subquery()
        healthy = session.scalar(select(func.count()).select_from(few)) or 0
    if pace.max_per_minute:
        # a lease never changes before it was given, so the index of changes finds the new ones
        recent = (d.outcome.in_(OUTCOMES), d.changed_at > now - MINUTE)
        # one from far ahead is of a clock that jumped, and must not stop the rollout until then
        given = d.leased_at.between(now - MINUTE, now + MINUTE)
        query = select(func.count()).where(mine, *recent, given)
        last_minute = session.scalar(query) or 0
    return LeaseCounts(
        in_flight=sum(by_outcome.get(outcome, 0) for outcome in IN_FLIGHT),
        failed=sum(by_outcome.get(outcome, 0) for outcome in (*DID_NOT, SILENT)),
        healthy=healthy,
        last_minute=last_minute,
    )


class Limit(NamedTuple):
    """How many more devices one rule lets in now, and the rule in words."""

    room: int
    sentence: str


def limits(pace: Pace, counts: LeaseCounts, *, group_size: int) -> list[Limit]:
    """What each rule of the pace says."""
    found = []
    flying = f"{counts.in_flight} in flight"
    if pace.max_in_flight:
        room = pace.max_in_flight - counts.in_flight
        found.append(Limit(room, f"{flying} of at most {pace.max_in_flight}"))
    if pace.max_per_minute:
        room = pace.max_per_minute - counts.last_minute
        sentence = f"{counts.last_minute} of at most {pace.max_per_minute} started this minute"
        found.append(Limit(room, sentence))
    if pace.ramp_start:
        capacity = ramp(pace, counts.healthy)
        sentence = f"{flying}; the ramp allows {capacity} after {counts.healthy} healthy"
        found.append(Limit(capacity - counts.in_flight, sentence))
    if pace.min_available:
        allowed = may_be_missing(pace, group_size)
        missing = counts.in_flight + counts.failed
        sentence = (
            f"{missing} of {group_size} in flight or failed; "
            f"min_available {pace.min_available:.0%} allows {allowed}"
        )
        found.append(Limit(allowed - missing, sentence))
    return found


def may_be_missing(pace: Pace, group_size: int) -> int:
    """Return how many devices of the group may be in flight or failed at once: always one, so that
    a small group does not stand still for ever."""
    return max(1, int((1 - pace.min_available) * group_size + 1e-9))


def ramp(pace: Pace, healthy: int) -> int:
    """Return how many devices may be in flight after so many became healthy.

    It begins with `ramp_start` and grows by `ramp_factor` each time as many as it allowed have
    become healthy: 10, then 20 after 10, 40 after 30, 80 after 70.
    """
    capacity = float(pace.ramp_start or 0)
    if capacity <= 0 or pace.ramp_factor <= 1:
        return int(capacity)
    left = float(healthy)
    while left >= int(capacity) and capacity < 2**31:
        left -= int(capacity)
        capacity *= pace.ramp_factor
    return int(capacity)


def room(session: Session, rollout_id: int, pace: Pace, *, group_size: int, now: datetime) -> int:
    """How many more devices may be let in now."""
    counts = count(session, rollout_id, pace, now=now)
    found = limits(pace, counts, group_size=group_size)
    return max(0, min((limit.room for limit in found), default=NO_LIMIT))


def grant(
    session: Session,
    *,
    rollout_id: int,
    pace: Pace,
    device_ids: Sequence[int],
    group_size: int,
    now: datetime,
    serving: Mapping[int, str] | None = None,
) -> list[int]:
    """Give leases to as many of these devices as there is room for, the first ones first.

    Returns those that got one. A device that failed, or has a lease, gets none; nor does any while
    the rollout does not run. `group_size` counts the group's enrolled devices. With `serving`, the
    version that each of them runs, the leases are for its shadow.
    """
    lock_fleet(session)
    row = session.get(RolloutRow, rollout_id, with_for_update=True, populate_existing=True)
    if row is None or row.state != RolloutState.RUNNING:
        return []
    if stored_policy(row.document).in_shadow(row.wave) is not (serving is not None):
        return []
    left = room(session, rollout_id, pace, group_size=group_size, now=now)
    if not left:
        return []
    settled = had_their_turn(session, rollout_id, device_ids, in_shadow=serving is not None)
    let_in = [i for i in dict.fromkeys(device_ids) if i not in settled][:left]
    _lease(session, row, let_in, now=now, serving=serving)
    revise(session, let_in)
    return let_in


def had_their_turn(
    session: Session, rollout_id: int, device_ids: Sequence[int], *, in_shadow: bool = False
) -> set[int]:
    """Those of the devices that get no lease: they have one, or it came to an end with it. Who is
    in shadow had no turn to switch yet."""
    d = RolloutDeviceRow
    mine = d.rollout_id == rollout_id, d.device_id.in_(device_ids)
    may = (EXPIRED,) if in_shadow else (EXPIRED, *IN_SHADOW)
    return set(session.scalars(select(d.device_id).where(*mine, d.outcome.not_in(may))))


def _lease(
    session: Session,
    row: RolloutRow,
    device_ids: list[int],
    *,
    now: datetime,
    serving: Mapping[int, str] | None,
) -> None:
    d = RolloutDeviceRow
    outcome = LEASED if serving is None else SHADOW_LEASED
    values = {"wave": row.wave, "outcome": outcome, "leased_at": now, "changed_at": now}
    had = select(d.device_id).where(d.rollout_id == row.id, d.device_id.in_(device_ids))
    known = set(session.scalars(had))
    again = [i for i in device_ids if i in known]
    fresh = [i for i in device_ids if i not in known]
    if again:
        session.execute(
            update(d).where(d.rollout_id == row.id, d.device_id.in_(again)).values(**values),
            execution_options={"synchronize_session": False},
        )
    if fresh:
        none_yet = {"rollout_id": row.id, "number": 0, "slices": {}}
        session.execute(insert(d), [{**none_yet, **values, "device_id": i} for i in fresh])
    runs = serving or {}
    for version in sorted(set(runs.values())):
        of_it = [i for i in device_ids if runs.get(i) == version]
        session.execute(
            update(d)
            .where(d.rollout_id == row.id, d.device_id.in_(of_it))
            .values(came_from=version),
            execution_options={"synchronize_session": False},
        )


def forget_failures(
    session: Session, device_ids: Collection[int], *, model: str, counts_from: int, now: datetime
) -> None:
    """Let devices on which a model's rollouts failed have their turn again, once for each call.

    What they report under a directive older than `counts_from` is of the try before.
    """
    d, r = RolloutDeviceRow, RolloutRow
    failed = d.device_id.in_(device_ids), d.outcome.in_(DID_NOT)
    if session.scalar(select(d.rollout_id).where(*failed).limit(1)) is None:
        return
    offering = select(r.id).where(r.model == model, r.state.in_([str(s) for s in OFFERING]))
    session.execute(
        update(d)
        .where(*failed, d.rollout_id.in_(offering))
        .values(outcome=EXPIRED, changed_at=now, counts_from=counts_from),
        execution_options={"synchronize_session": False},
    )


def end_unused(session: Session, rollout_id: int, *, now: datetime) -> int:
    """Take back the leases of a rollout that no device used yet, and return how many."""
    d = RolloutDeviceRow
    unused = d.rollout_id == rollout_id, d.outcome.in_(UNUSED)
    quietly = {"synchronize_session": False}
    if session.scalar(select(d.device_id).where(*unused).limit(1)) is None:
        return 0
    session.execute(
        update(DeviceRow)
        .where(DeviceRow.id.in_(select(d.device_id).where(*unused)))
        .values(revision=next_revision(session)),
        execution_options=quietly,
    )
    ended = session.execute(
        update(d).where(*unused).values(outcome=EXPIRED, changed_at=now).returning(d.device_id),
        execution_options=quietly,
    )
    return len(ended.all())

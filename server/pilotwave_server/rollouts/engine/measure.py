"""Count devices that a rollout can still reach. These counts read the rollout's group, so they are
taken seldom (`engine.LastCounts`), and only when a decision hangs on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, exists, false, func, not_, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.tables import DeviceRow, PinRow
from pilotwave_server.groups.service import in_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.fitting import count_fitting
from pilotwave_server.rollouts.assignments.load_device import look
from pilotwave_server.rollouts.assignments.resolve import explain
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.engine.intervals import reports_every
from pilotwave_server.rollouts.leases import DID_NOT, HEALTHY, SILENT, TOOK_IT
from pilotwave_server.rollouts.operate.preview import can_try, thresholds, wave_of
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.tables import RolloutDeviceRow, RolloutRow
from pilotwave_server.rollouts.transitions import group_of

FEW = 50


def reachable(
    session: Session,
    snapshot: FleetSnapshot,
    rollout: RolloutRow,
    policy: Policy,
    *,
    unsettled: bool,
) -> int:
    """Count the enrolled devices that the open waves take and that a variant fits.

    Pinned devices and those for which the version is quarantined are out of reach; a shadow wave
    reaches those that can take part. `unsettled` counts only those that have not settled and do not
    run the version already.
    """
    group = group_of(session, rollout)
    bounds = thresholds(session, group, rollout, policy)
    d, pin, in_shadow = DeviceRow, PinRow, policy.in_shadow(rollout.wave)
    number = wave_of(session, rollout, policy, bounds, in_shadow=in_shadow)
    rules = [
        number.between(0, rollout.wave),
        *([can_try(session, rollout.model, rollout.version)] if in_shadow else []),
        ~exists().where(pin.device_id == d.id, pin.model == rollout.model),
        *_not_quarantined(session, snapshot, rollout),
    ]
    if unsettled:
        r, m = RolloutDeviceRow, DeviceModelRow
        done = (HEALTHY, SILENT, *DID_NOT)
        mine = r.device_id == d.id, r.rollout_id == rollout.id
        runs = m.device_id == d.id, m.model == rollout.model
        rules += [
            ~exists().where(*mine, r.outcome.in_(done)),
            ~exists().where(*runs, m.current_version == rollout.version),
        ]
    version: Released = snapshot.versions[rollout.model, rollout.version]
    return count_fitting(session, group, version, *rules).fits


def _not_quarantined(
    session: Session, snapshot: FleetSnapshot, rollout: RolloutRow
) -> list[ColumnElement[bool]]:
    rules: list[ColumnElement[bool]] = []
    for q in snapshot.quarantines:
        if (q.model, q.version) == (rollout.model, rollout.version) and q.group_id is not None:
            other = session.get(GroupRow, q.group_id)
            if other is not None:
                rules.append(not_(in_group(session, other)))
    return rules


class StillOn(NamedTuple):
    """Devices that took the version and have not said that they left it: those that are told to and
    were heard lately, those not heard, and those that keep it, with why (`kept`: reason, devices).
    `check_in_s` is how often the slowest of those reports that were heard lately.
    """

    leaving: int = 0
    unheard: int = 0
    kept: tuple[tuple[str, int], ...] = ()
    check_in_s: int | None = None


def still_on(
    session: Session,
    snapshot: FleetSnapshot,
    rollout: RolloutRow,
    *,
    heard_after: Callable[[int | None], datetime],
) -> StillOn:
    """Count them. Why a device keeps the version is looked into where they are few. `heard_after`
    says for an interval after when such a device was heard lately."""
    r, d = RolloutDeviceRow, DeviceRow
    rules = (
        r.rollout_id == rollout.id,
        r.outcome.in_(TOOK_IT),
        r.left_at.is_(None),
        d.state == "enrolled",
    )
    newest = select(d.check_in_s, func.max(d.last_check_in)).join(r, d.id == r.device_id)
    last = session.execute(newest.where(*rules).group_by(d.check_in_s)).tuples().all()
    if not last:
        return StillOn()
    lately = [(reports_every(every), d.last_check_in > heard_after(every)) for every, _ in last]
    heard = and_(d.last_check_in.is_not(None), case(*lately, else_=false()))
    told_s = [every or 0 for every, at in last if at is not None and at > heard_after(every)]
    slowest = max(told_s, default=0) or None
    on_it = select(d.name, heard).join(r, d.id == r.device_id).where(*rules).order_by(d.id)
    found = session.execute(on_it.limit(FEW + 1)).tuples().all()
    if len(found) > FEW:
        counted = select(heard, func.count()).join(r, d.id == r.device_id).where(*rules)
        number = dict(session.execute(counted.group_by(heard)).tuples().all())
        return StillOn(number.get(True, 0), number.get(False, 0), (), slowest)
    why = {name: _keeps(session, snapshot, rollout, name) for name, _ in found}
    kept = Counter(reason for reason in why.values() if reason)
    told = [was_heard for name, was_heard in found if not why[name]]
    return StillOn(
        sum(map(bool, told)), sum(not h for h in told), tuple(sorted(kept.items())), slowest
    )


def _keeps(session: Session, snapshot: FleetSnapshot, rollout: RolloutRow, name: str) -> str:
    """Say why this device is not told to leave the version; empty where it is."""
    steps = list(explain(look(session, snapshot, name).view, snapshot, rollout.model))
    last = steps[-1] if steps else None
    if last is None or last.hold is not None:
        return "no other version may be offered to it"
    asks = last.candidate
    if asks.version != rollout.version:
        return ""
    if asks.reason == "pin":
        return "an operator pinned it there"
    if asks.rollout is not None:
        return f"{asks.rollout.id} brings it to group {asks.group}, where the device is now"
    return f"it is the baseline of group {asks.group}, where the device is now"

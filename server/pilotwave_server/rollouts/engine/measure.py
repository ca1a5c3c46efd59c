"""Count devices that a rollout can still reach. These counts read the rollout's group, so they are
taken seldom (`engine.Counts`), and only when a decision hangs on them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, exists, func, not_, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import DeviceRow, PinRow
from pilotwave_server.groups.service import in_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.fleet import FleetSnapshot
from pilotwave_server.rollouts.leases import DID_NOT, HEALTHY, SILENT, TOOK_IT
from pilotwave_server.rollouts.planning import thresholds, wave_of
from pilotwave_server.rollouts.policies.document import Policy
from pilotwave_server.rollouts.preview import count_fitting
from pilotwave_server.rollouts.service import group_of
from pilotwave_server.rollouts.tables import RolloutDeviceRow, RolloutRow
from pilotwave_server.telemetry.tables import DeviceModelRow


def reachable(
    session: Session,
    snapshot: FleetSnapshot,
    rollout: RolloutRow,
    policy: Policy,
    *,
    unsettled: bool,
) -> int:
    """Count the enrolled devices that the open waves take and that a variant fits.

    Pinned devices and those for which the version is quarantined are out of reach. `unsettled`
    counts only those that have not settled and do not run the version already.
    """
    group = group_of(session, rollout)
    bounds = thresholds(session, group, rollout, policy)
    d, pin = DeviceRow, PinRow
    rules = [
        wave_of(session, rollout, policy, bounds).between(0, rollout.wave),
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


def still_on(session: Session, rollout: RolloutRow, *, heard_after: datetime) -> int:
    """Count the devices heard since then that took the version and have not left it."""
    r, d = RolloutDeviceRow, DeviceRow
    query = (
        select(func.count())
        .select_from(r)
        .join(d, d.id == r.device_id)
        .where(
            r.rollout_id == rollout.id,
            r.outcome.in_(TOOK_IT),
            r.left_at.is_(None),
            d.state == "enrolled",
            d.last_check_in > heard_after,
        )
    )
    return session.scalar(query) or 0

"""Read rollouts for people: lists, counts by wave and outcome, what was decided, what holds it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.service import count_devices, get_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.paging import PageRequest, paginate
from pilotwave_server.registry.service import check_model_known
from pilotwave_server.rollouts.gates.verdict import Word
from pilotwave_server.rollouts.leases import count, limits
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.rollouts.tables import (
    DecisionRow,
    RolloutDeviceRow,
    RolloutRow,
    RolloutWaveRow,
)
from pilotwave_server.rollouts.transitions import group_of

_MOST = 200


def rules_of(
    session: Session,
    *,
    group: str | None = None,
    model: str | None = None,
    state: RolloutState | None = None,
) -> list[ColumnElement[bool]]:
    """The WHERE expressions over rollouts. GroupUnknown, ModelUnknown."""
    r = RolloutRow
    rules: list[ColumnElement[bool]] = []
    if group is not None:
        rules.append(r.group_id == get_group(session, group).id)
    if model is not None:
        check_model_known(session, model)
        rules.append(r.model == model)
    if state is not None:
        rules.append(r.state == str(state))
    return rules


def list_rollouts(
    session: Session, *, page: PageRequest, rules: Sequence[ColumnElement[bool]] = ()
) -> tuple[list[RolloutRow], str | None]:
    """The newest first."""
    query = select(RolloutRow).where(*rules)
    return paginate(session, query, keys=[RolloutRow.id], page=page, descending=True)


def group_names(session: Session, rows: list[RolloutRow]) -> dict[int, str]:
    """By number, the names of the rollouts' groups."""
    ids = {row.group_id for row in rows}
    query = select(GroupRow.id, GroupRow.name).where(GroupRow.id.in_(ids))
    return dict(session.execute(query).tuples().all())


class RolledBack(NamedTuple):
    """A rollout that took its version back, from which group, and why."""

    rollout: str
    group: str
    reason: str


def rolled_back(session: Session, model: str) -> dict[str, list[RolledBack]]:
    """By version of a model, the rollouts that took it back or do so now, the newest first."""
    r = RolloutRow
    back = r.state.in_((str(RolloutState.ROLLING_BACK), str(RolloutState.ROLLED_BACK)))
    query = select(r).where(r.model == model, back).order_by(r.id.desc()).limit(_MOST)
    rows = list(session.scalars(query))
    groups = group_names(session, rows)
    found: dict[str, list[RolledBack]] = defaultdict(list)
    for row in rows:
        told = RolledBack(f"r{row.id}", groups[row.group_id], row.reason or "")
        found[row.version].append(told)
    return found


def outcomes_by_wave(session: Session, rollout: RolloutRow) -> dict[int, dict[str, int]]:
    """By wave and outcome, how many devices there are."""
    d = RolloutDeviceRow
    query = select(d.wave, d.outcome, func.count()).where(d.rollout_id == rollout.id)
    found: dict[int, dict[str, int]] = defaultdict(dict)
    for wave, outcome, number in session.execute(query.group_by(d.wave, d.outcome)):
        found[wave][outcome] = number
    return found


def opened_waves(session: Session, rollout: RolloutRow) -> dict[int, RolloutWaveRow]:
    """The waves that were opened, by index."""
    w = RolloutWaveRow
    rows = session.scalars(select(w).where(w.rollout_id == rollout.id))
    return {row.wave: row for row in rows}


def list_decisions(
    session: Session, rollout: RolloutRow, *, page: PageRequest
) -> tuple[list[DecisionRow], str | None]:
    """What was decided about the rollout, the newest first."""
    query = select(DecisionRow).where(DecisionRow.rollout_id == rollout.id)
    return paginate(session, query, keys=[DecisionRow.id], page=page, descending=True)


def list_devices(
    session: Session, rollout: RolloutRow, *, page: PageRequest, outcome: str | None = None
) -> tuple[list[tuple[str, RolloutDeviceRow]], str | None]:
    """The devices that acted, with their names, in the order in which they joined the fleet."""
    d = RolloutDeviceRow
    query = select(d).where(d.rollout_id == rollout.id)
    if outcome is not None:
        query = query.where(d.outcome == outcome)
    rows, cursor = paginate(session, query, keys=[d.device_id], page=page)
    ids = [row.device_id for row in rows]
    wanted = select(DeviceRow.id, DeviceRow.name).where(DeviceRow.id.in_(ids))
    names = dict(session.execute(wanted).tuples().all())
    return [(names[row.device_id], row) for row in rows], cursor


def pace_now(session: Session, rollout: RolloutRow, policy: Policy, *, now: datetime) -> list[str]:
    """What each rule of the pace says at the moment, in words; nothing unless it runs paced."""
    if rollout.state != RolloutState.RUNNING or not policy.pace.limits:
        return []
    size = 0
    if policy.pace.min_available:
        size = count_devices(session, group_of(session, rollout))
    counts = count(session, rollout.id, policy.pace, now=now)
    return [limit.sentence for limit in limits(policy.pace, counts, group_size=size)]


def count_decisions(session: Session) -> dict[str, int]:
    """How many decisions followed from each verdict."""
    d = DecisionRow
    query = select(d.verdict, func.count()).where(d.verdict.is_not(None)).group_by(d.verdict)
    counted = dict(session.execute(query).tuples().all())
    return {str(word): counted.get(str(word), 0) for word in Word if word is not Word.WAIT}


def count_rollouts(session: Session) -> dict[str, int]:
    """How many rollouts there are in each state."""
    r = RolloutRow
    query = select(r.state, func.count()).group_by(r.state)
    return dict(session.execute(query).tuples().all())

"""Say who is in which wave of a rollout, there or only thought of, and what each would get.

The same rule as `fleet.RunningRollout.includes`, written in SQL; a device counts for the first wave
that takes it. Who is in a wave that is not open yet may change until it opens: devices come, go and
change groups, and a count wave is measured when it opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, exists, false, func, literal, or_, select
from sqlalchemy.orm import Session

from pilotwave_protocol.messages.facts import AGENT_SHADOWS
from pilotwave_protocol.names import AGENT_MODEL, FACT
from pilotwave_protocol.states import ModelState
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.tables import PRIME, DeviceRow, PinRow
from pilotwave_server.groups.service import in_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.paging import PageRequest, paginate
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.resolve import Hold, choose_variant
from pilotwave_server.rollouts.assignments.snapshot import DeviceView
from pilotwave_server.rollouts.choice.trial import NO_TRIALS, Trials
from pilotwave_server.rollouts.operate.create import in_canary
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.tables import RolloutRow, RolloutWaveRow
from pilotwave_server.rollouts.waves import not_pinned, opened_threshold, position_sql, takers
from pilotwave_server.selector import compile_sql, parse

OUTSIDE = -1
_KNOWS_HOW = parse(f"{FACT}{AGENT_SHADOWS}=true")


@dataclass(frozen=True)
class PlannedDevice:
    """One device: the wave that takes it (None: no wave does), and the variant or why none fits.
    `pinned` is the version that an operator pinned it to: it keeps that one."""

    name: str
    wave: int | None
    variant: str | None
    hold: Hold | None
    pinned: str | None = None


def thresholds(session: Session, group: GroupRow, rollout: RolloutRow, policy: Policy) -> list[int]:
    """By wave the bound of positions, as it was opened or as it would be now."""
    opened = {}
    if rollout.id is not None:
        w = RolloutWaveRow
        query = select(w.wave, w.threshold).where(w.rollout_id == rollout.id)
        opened = dict(session.execute(query).tuples().all())
    found: list[int] = []
    for index in range(len(policy.waves)):
        bound = opened.get(index)
        if bound is None:
            bound = opened_threshold(session, group, rollout, policy, index)
        kind = policy.in_shadow(index)
        before = [b for n, b in enumerate(found) if policy.in_shadow(n) is kind]
        found.append(max([bound, *before[-1:]]))
    return found


def wave_of(
    session: Session,
    rollout: RolloutRow,
    policy: Policy,
    bounds: Sequence[int],
    *,
    in_shadow: bool = False,
) -> ColumnElement[int]:
    """Over devices, the index of the first wave that switches the device (or tries the version
    there `in_shadow`), or `OUTSIDE`."""
    place = position_sql(rollout)
    rules = []
    for index, (wave, bound) in enumerate(zip(policy.waves, bounds, strict=True)):
        if policy.in_shadow(index) is not in_shadow:
            continue
        here = place < bound if bound < PRIME else literal(True)
        if wave.canary is not None:
            here = or_(in_canary(session, wave.canary), here)
        rules.append((here, index))
    return case(*rules, else_=OUTSIDE)


def count_by_wave(
    session: Session, group: GroupRow, rollout: RolloutRow, policy: Policy, bounds: Sequence[int]
) -> dict[int, int]:
    """How many devices of the group each wave takes (`OUTSIDE`: none does), pinned ones apart."""
    found = _count(session, group, rollout, policy, bounds)
    if not policy.first_switching:
        return found
    tried = _count(session, group, rollout, policy, bounds, in_shadow=True)
    return {**found, **{n: count for n, count in tried.items() if n != OUTSIDE}}


def count_able(
    session: Session,
    group: GroupRow,
    rollout: RolloutRow,
    policy: Policy,
    version: str,
    bounds: Sequence[int],
) -> dict[int, int]:
    """How many of each shadow wave's devices can take part now."""
    if not policy.first_switching:
        return {}
    able = can_try(session, rollout.model, version)
    return _count(session, group, rollout, policy, bounds, able, in_shadow=True)


def _count(
    session: Session,
    group: GroupRow,
    rollout: RolloutRow,
    policy: Policy,
    bounds: Sequence[int],
    *rules: ColumnElement[bool],
    in_shadow: bool = False,
) -> dict[int, int]:
    number = wave_of(session, rollout, policy, bounds, in_shadow=in_shadow).label("number")
    query = (
        select(number, func.count())
        .where(*takers(session, group, rollout.model), *rules)
        .group_by("number")
    )
    return dict(session.execute(query).tuples().all())


def can_try(session: Session, model: str, version: str) -> ColumnElement[bool]:
    """The WHERE expression over devices that can try a version in shadow: their agents
    know how, and they are well on another version of the model."""
    if model == AGENT_MODEL:
        return false()
    dialect = session.get_bind().dialect.name
    knows = compile_sql(_KNOWS_HOW, DeviceRow.labels, DeviceRow.facts, dialect=dialect)
    m = DeviceModelRow
    runs = m.device_id == DeviceRow.id, m.model == model
    well = m.state.not_in((str(ModelState.FAILED), str(ModelState.ROLLED_BACK)))
    return and_(knows, exists().where(*runs, well, m.current_version != version))


def count_pinned(session: Session, group: GroupRow, model: str) -> int:
    """How many enrolled devices of the group are pinned to a version of the model."""
    pinned = select(PinRow.device_id).where(PinRow.model == model)
    members = DeviceRow.state == "enrolled", in_group(session, group), DeviceRow.id.in_(pinned)
    return session.scalar(select(func.count()).select_from(DeviceRow).where(*members)) or 0


def planned(
    session: Session,
    group: GroupRow,
    rollout: RolloutRow,
    policy: Policy,
    version: Released,
    *,
    bounds: Sequence[int],
    page: PageRequest,
    wave: int | None = None,
    trials: Trials = NO_TRIALS,
) -> tuple[list[PlannedDevice], str | None]:
    """The group's enrolled devices by name, or those that `wave` takes."""
    in_shadow = wave is not None and policy.in_shadow(wave)
    number = wave_of(session, rollout, policy, bounds, in_shadow=in_shadow)
    query = select(DeviceRow).where(DeviceRow.state == "enrolled", in_group(session, group))
    if wave is not None:
        query = query.where(number == wave, not_pinned(rollout.model))
    rows, cursor = paginate(session, query, keys=[DeviceRow.name], page=page)
    ids = [row.id for row in rows]
    places = dict(
        session.execute(select(DeviceRow.id, number).where(DeviceRow.id.in_(ids))).tuples().all()
    )
    pins = dict(
        session.execute(
            select(PinRow.device_id, PinRow.version).where(
                PinRow.device_id.in_(ids), PinRow.model == rollout.model
            )
        )
        .tuples()
        .all()
    )
    found = []
    for row in rows:
        if row.id in pins:
            found.append(PlannedDevice(row.name, None, None, None, pins[row.id]))
            continue
        view = DeviceView(name=row.name, facts=row.facts)
        variant, hold = choose_variant(view, version, policy.choose, trials)
        place = None if places[row.id] == OUTSIDE else places[row.id]
        found.append(PlannedDevice(row.name, place, variant.name if variant else None, hold))
    return found, cursor

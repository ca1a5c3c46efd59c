"""Draw the fleet's picture (`FleetSnapshot`) from the database.

What never changes about a version is read and parsed once and kept: a new picture after a change
costs a few short queries, however many versions and devices there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import ColumnElement, and_, exists, or_, select
from sqlalchemy.orm import Session

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.tracing import TraceContext
from pilotwave_protocol.trust import facts_asked
from pilotwave_server.db import fleet_row
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.registry import service as registry
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.snapshot import (
    Baseline,
    FleetSnapshot,
    GroupInFleet,
    OpenShadow,
    Quarantine,
    Removal,
    RunningRollout,
)
from pilotwave_server.rollouts.choice.store import read_trials
from pilotwave_server.rollouts.leases import ROLLED_BACK, TOOK_IT
from pilotwave_server.rollouts.policies.policy import Policy, waits_for
from pilotwave_server.rollouts.policies.stored import stored_choose, stored_policy
from pilotwave_server.rollouts.states import OFFERING, OVER, RolloutState
from pilotwave_server.rollouts.tables import (
    BaselineRow,
    QuarantineRow,
    RemovalRow,
    RolloutDeviceRow,
    RolloutRow,
    RolloutWaveRow,
)
from pilotwave_server.rollouts.traces import traces_of, wave_of
from pilotwave_server.rollouts.waves import canary_group_id
from pilotwave_server.selector import compile_predicate, parse


class RememberedSnapshot:
    """What was parsed of signed manifests and policies, kept from one picture to the next; `asked`
    are the facts that any of the manifests asks for by name."""

    def __init__(self) -> None:
        self.manifests: dict[str, registry.Contents] = {}
        self.asked: frozenset[str] = frozenset()
        self.policies: dict[int, Policy] = {}


def read_snapshot(session: Session, remembered: RememberedSnapshot) -> FleetSnapshot:
    """Return the picture at the session's moment."""
    row = fleet_row(session)
    groups = session.scalars(select(GroupRow).order_by(GroupRow.id)).all()
    names = {g.id: g.name for g in groups}
    versions = _versions(session, remembered)
    rollouts = session.scalars(select(RolloutRow).where(_in_force()).order_by(RolloutRow.id)).all()
    policies = _policies(rollouts, remembered)
    canaries = tuple(_canary_groups(rollouts, policies))
    by_name, traces = {g.name: g.id for g in groups}, traces_of(session, rollouts)
    shadows = _shadow_thresholds(session, policies)
    running = _rollouts(rollouts, policies, by_name, traces, shadows)
    baselines = _baselines(session, names)
    return FleetSnapshot(
        fleet=row.fleet,
        revision=row.fleet_revision,
        groups=(*(_group(g) for g in groups), *canaries),
        asked=remembered.asked,
        reading_key=_reading_key(groups, canaries, remembered.asked),
        versions=versions,
        floors=registry.floors(session),
        baselines=baselines,
        rollouts=running,
        quarantines=_quarantines(session),
        removals=_removals(session),
        trials=read_trials(session, _chosen_by_measuring(versions, running, baselines)),
    )


def _chosen_by_measuring(
    versions: Mapping[tuple[str, str], Released],
    rollouts: Mapping[str, Sequence[RunningRollout]],
    baselines: Mapping[str, Sequence[Baseline]],
) -> set[str]:
    """The manifests of the versions whose variants are chosen by what devices measure."""
    asking: list[RunningRollout | Baseline] = []
    for running in rollouts.values():
        asking += running
    for standing in baselines.values():
        asking += standing
    named = {(one.model, one.version) for one in asking if one.choose is not None}
    return {versions[key].sha256 for key in named if key in versions}


def _group(row: GroupRow) -> GroupInFleet:
    selects = None if row.selector is None else compile_predicate(parse(row.selector))
    return GroupInFleet(row.id, row.name, selects)


def _versions(
    session: Session, remembered: RememberedSnapshot
) -> dict[tuple[str, str], registry.Released]:
    """Every version. What they ask is looked through when there is a new one."""
    known = len(remembered.manifests)
    found = registry.released(session, remembered=remembered.manifests)
    versions = {(v.model, v.version): v for v in found}
    if len(remembered.manifests) != known:
        remembered.asked = facts_asked(v for m in remembered.manifests.values() for v in m.variants)
    return versions


def _reading_key(
    groups: Iterable[GroupRow], canaries: Iterable[GroupInFleet], asked: frozenset[str]
) -> str:
    selectors = [(g.id, g.selector) for g in groups if g.selector is not None]
    # a rollout's policy never changes, so the number stands for the selector
    return sha256_hex(repr((selectors, [c.id for c in canaries], sorted(asked))).encode())


def _in_force() -> ColumnElement[bool]:
    """The rollouts that decide what devices run: those that offer, aborted ones that devices took,
    until their group is given a baseline after that, and ones that are rolled back, as long as a
    device runs what it took of them."""
    r, b, d, m = RolloutRow, BaselineRow, RolloutDeviceRow, DeviceModelRow
    newer = exists().where(
        b.group_id == r.group_id,
        b.model == r.model,
        b.ended_at.is_(None),
        b.revision > r.revision,
    )
    taken = exists().where(d.rollout_id == r.id, d.outcome.in_(TOOK_IT))
    left = and_(r.state == str(RolloutState.ABORTED), taken, ~newer)
    on_it = (
        exists()
        .where(d.rollout_id == r.id, d.outcome.in_(TOOK_IT), m.device_id == d.device_id)
        .where(m.model == r.model, or_(m.current_version == r.version, m.state == ROLLED_BACK))
    )
    not_back = and_(r.state == str(RolloutState.ROLLED_BACK), on_it)
    states = [str(state) for state in (*OFFERING, RolloutState.ROLLING_BACK)]
    return or_(r.state.in_(states), left, not_back)


def _policies(rows: Sequence[RolloutRow], remembered: RememberedSnapshot) -> dict[int, Policy]:
    known = remembered.policies
    policies = {r.id: known.get(r.id) or stored_policy(r.document) for r in rows}
    remembered.policies = policies
    return policies


def _canary_groups(
    rows: Sequence[RolloutRow], policies: dict[int, Policy]
) -> Iterator[GroupInFleet]:
    """The unnamed groups of canary selectors, opened or not, so that opening one moves no device
    from group to group."""
    for row in (r for r in rows if r.state not in OVER):
        for index, wave in enumerate(policies[row.id].waves):
            if wave.canary is not None and wave.canary.selector is not None:
                selects = compile_predicate(parse(wave.canary.selector))
                name = f"wave {wave.name} of r{row.id}"
                yield GroupInFleet(canary_group_id(row.id, index), name, selects)


def _rollouts(
    rows: Sequence[RolloutRow],
    policies: dict[int, Policy],
    groups: dict[str, int],
    traces: dict[int, TraceContext],
    shadows: dict[int, int],
) -> dict[str, tuple[RunningRollout, ...]]:
    """By model, the newest first."""
    by_model: dict[str, list[RunningRollout]] = defaultdict(list)
    for row in reversed(rows):
        trace, policy = traces.get(row.id), policies[row.id]
        found = _rollout(row, policy, groups, trace)
        if shadows.get(row.id) is not None:
            found = replace(found, shadow=_open_shadow(row, policy, groups, shadows[row.id]))
        by_model[row.model].append(found)
    return {model: tuple(found) for model, found in by_model.items()}


def _rollout(
    row: RolloutRow, policy: Policy, groups: dict[str, int], trace: TraceContext | None
) -> RunningRollout:
    canaries, named = _canaries(row, policy, groups, in_shadow=False)
    return RunningRollout(
        id=f"r{row.id}",
        row_id=row.id,
        group_id=row.group_id,
        model=row.model,
        version=row.version,
        state=RolloutState(row.state),
        pace=policy.pace,
        open=f"wave {policy.waves[row.wave].name}" if row.wave >= 0 else "",
        threshold=row.threshold,
        multiplier=row.multiplier,
        offset=row.offset,
        canaries=canaries,
        named=named,
        conditions=entry_conditions(policy),
        slice_keys=policy.slice_keys,
        asks=policy.asks,
        trace=None if trace is None else wave_of(trace, row),
        choose=policy.choose,
    )


def _canaries(
    row: RolloutRow, policy: Policy, groups: dict[str, int], *, in_shadow: bool
) -> tuple[frozenset[int], frozenset[str]]:
    """The groups and the named devices of the canary waves that were opened, of one kind."""
    canaries: set[int] = set()
    named: set[str] = set()
    for index, wave in enumerate(policy.waves[: row.wave + 1]):
        if wave.canary is None or policy.in_shadow(index) is not in_shadow:
            continue
        named.update(wave.canary.devices)
        if wave.canary.selector is not None:
            canaries.add(canary_group_id(row.id, index))
        if wave.canary.group in groups:
            canaries.add(groups[wave.canary.group])
    return frozenset(canaries), frozenset(named)


def _open_shadow(
    row: RolloutRow, policy: Policy, groups: dict[str, int], threshold: int
) -> OpenShadow:
    lets_in = policy.in_shadow(row.wave)
    last = row.wave if lets_in else policy.first_switching - 1
    shadow = policy.waves[last].shadow
    canaries, named = _canaries(row, policy, groups, in_shadow=True)
    condition = {} if shadow is None else shadow.condition
    return OpenShadow(condition, threshold, canaries, named, lets_in)


def _shadow_thresholds(session: Session, policies: dict[int, Policy]) -> dict[int, int]:
    """By rollout, the bound of positions of its shadow waves, where one was opened."""
    having = {id: policy.first_switching for id, policy in policies.items()}
    asked = [id for id, first in having.items() if first]
    if not asked:
        return {}
    w = RolloutWaveRow
    found: dict[int, int] = {}
    query = select(w.rollout_id, w.wave, w.threshold).where(w.rollout_id.in_(asked))
    for rollout, wave, threshold in session.execute(query):
        if wave < having[rollout]:
            found[rollout] = max(found.get(rollout, 0), threshold)
    return found


def entry_conditions(policy: Policy) -> dict[str, object]:
    """What a device is told to wait for before it changes: conditions, and `windows` of which one
    has to be open. What does not matter is left out."""
    found = waits_for(policy.conditions, policy.windows)
    return {**found, "together": sorted(policy.together)} if policy.together else found


def _baselines(session: Session, names: dict[int, str]) -> dict[str, tuple[Baseline, ...]]:
    """The baselines in force, by model: a group's newest by revision, its older ones behind it."""
    standing = (
        select(BaselineRow)
        .where(BaselineRow.ended_at.is_(None))
        .order_by(BaselineRow.revision.desc(), BaselineRow.id.desc())
    )
    by_model: dict[str, list[Baseline]] = defaultdict(list)
    for row in session.scalars(standing):
        by_model[row.model].append(
            Baseline(
                row.group_id,
                names[row.group_id],
                row.model,
                row.version,
                row.revision,
                tuple(row.together or ()),
                stored_choose(row.choose),
            )
        )
    return {model: tuple(found) for model, found in by_model.items()}


def _removals(session: Session) -> dict[str, Removal]:
    """By model, the groups and devices that it was ordered off."""
    r, groups, devices = (
        RemovalRow,
        defaultdict[str, set[int]](set),
        defaultdict[str, set[str]](set),
    )
    query = select(r.model, r.group_id, DeviceRow.name)
    for model, group, device in session.execute(
        query.outerjoin(DeviceRow, DeviceRow.id == r.device_id)
    ):
        if group is not None:
            groups[model].add(group)
        elif device is not None:
            devices[model].add(device)
    return {
        model: Removal(frozenset(groups[model]), frozenset(devices[model]))
        for model in sorted({*groups, *devices})
    }


def _quarantines(session: Session) -> tuple[Quarantine, ...]:
    rows = session.scalars(select(QuarantineRow).order_by(QuarantineRow.id))
    return tuple(Quarantine(q.group_id, q.model, q.version, q.reason) for q in rows)

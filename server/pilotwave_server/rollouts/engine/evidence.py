"""Gather what the gates of a rollout's open wave look at, at one moment."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from heapq import merge
from operator import itemgetter

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from pilotwave_protocol.states import ModelState
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.service import in_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.rollouts.engine.intervals import longest_s
from pilotwave_server.rollouts.gates.data import Evidence, Outcomes, Sample, Slice, series
from pilotwave_server.rollouts.leases import (
    DID_NOT,
    EXPIRED,
    HEALTHY,
    IN_FLIGHT,
    LEASED,
    SHADOWING,
    SILENT,
    TOOK_IT,
)
from pilotwave_server.rollouts.policies.paired import PairedGate
from pilotwave_server.rollouts.policies.policy import Gate, MetricGate, Policy
from pilotwave_server.rollouts.reports.samples import NEW, OLD
from pilotwave_server.rollouts.shadow_outcomes import counted_as, counts_as
from pilotwave_server.rollouts.tables import RolloutDeviceRow, RolloutRow, RolloutSampleRow

MOST_SAMPLES = 30_000
"""Of one arm of a series; the first ones are looked at. Those of 2,500 devices in all their first
windows are as many, and a difference that these do not show is of no account."""

LISTEN = 3
"""Reports that devices which took the version are given to be heard, before the first ones that
were may decide alone."""

_COMING = [
    str(state)
    for state in (
        ModelState.FETCHING,
        ModelState.VERIFYING,
        ModelState.STAGED,
        ModelState.TESTING,
        ModelState.SWITCHING,
    )
]

_NONE = Outcomes()


def load(
    session: Session, rollout: RolloutRow, policy: Policy, now: datetime, *, check_in_s: int = 0
) -> Evidence:
    """Return what is known of the rollout now. A fixed number of statements for each metric.

    `check_in_s` is how often a device reports whose own interval is not known. The first window of
    a version is warm-up, so whoever took it at the same time as the first one to speak has spoken
    after three reports.
    """
    d = RolloutDeviceRow
    mine = d.rollout_id == rollout.id
    by_outcome = select(d.outcome, d.wave, func.count(), func.max(d.changed_at)).where(mine)
    counted = session.execute(by_outcome.group_by(d.outcome, d.wave)).tuples().all()
    seen = list(counted_as(policy, rollout.wave, ((o, w, n) for o, w, n, _ in counted)))
    outcomes = _outcomes(seen)
    in_shadow = policy.in_shadow(rollout.wave)
    shadow = policy.waves[rollout.wave].shadow if in_shadow else None
    coming = 0 if policy.pace.limits or in_shadow else _coming(session, rollout)
    changed = max((at for *_, at in counted), default=now)
    gates = policy.waves[rollout.wave].gates if rollout.wave >= 0 else ()
    asked = sorted({series(*pair) for gate in gates for pair in _asks(gate)})
    every_s = longest_s(session, rollout.id, unknown_s=check_in_s) if asked else 0
    return Evidence(
        outcomes=_outcomes([(LEASED, coming)], outcomes),
        slices=_slices(session, rollout, policy) if any(gate.slice_by for gate in gates) else {},
        reasons=_reasons(session, rollout, policy) if outcomes.failed else {},
        samples={name: _samples(session, rollout, name) for name in asked},
        quiet_s=max(0.0, (now - changed).total_seconds()),
        in_use_s=_in_use_s(session, rollout, now, in_shadow=in_shadow) if asked else None,
        patience_s=max(policy.deadlines.silent_s, 2 * every_s),
        took=sum(number for outcome, number in seen if outcome in TOOK_IT),
        heard_s=_heard_s(session, rollout, now) if asked else {},
        listen_s=LISTEN * every_s,
        min_calls=shadow.min_calls if shadow else 0,
    )


def _asks(gate: Gate) -> tuple[tuple[str, str], ...]:
    """The metrics that a gate looks at, each with its statistic."""
    match gate:
        case MetricGate():
            return ((gate.metric, gate.statistic),)
        case PairedGate():
            return gate.asks
        case _:
            return ()


def _outcomes(counted: Iterable[tuple[str, int]], more: Outcomes = _NONE) -> Outcomes:
    """Count devices; what expired was never tried."""
    found: dict[str, int] = defaultdict(int)
    for outcome, number in counted:
        found[outcome] += number
    return Outcomes(
        healthy=more.healthy + found[HEALTHY],
        failed=more.failed + sum(found[outcome] for outcome in DID_NOT),
        silent=more.silent + found[SILENT],
        under_way=more.under_way + sum(found[outcome] for outcome in IN_FLIGHT),
    )


def _coming(session: Session, rollout: RolloutRow) -> int:
    """Count the group's devices that have begun to take the version and are not on the books yet.

    Without them, those that fail at once would be all that is seen of a wave at first.
    """
    m, d, r = DeviceModelRow, DeviceRow, RolloutDeviceRow
    group = session.get(GroupRow, rollout.group_id)
    if group is None:
        return 0
    on_books = exists().where(
        r.rollout_id == rollout.id,
        r.device_id == m.device_id,
        r.outcome.not_in((EXPIRED, SHADOWING)),
    )
    coming = (
        select(func.count())
        .select_from(m)
        .join(d, d.id == m.device_id)
        .where(m.candidate_version == rollout.version, m.model == rollout.model)
        .where(m.state.in_(_COMING), d.state == "enrolled", in_group(session, group), ~on_books)
    )
    return session.scalar(coming) or 0


def _slices(session: Session, rollout: RolloutRow, policy: Policy) -> dict[Slice, Outcomes]:
    d = RolloutDeviceRow
    query = select(d.outcome, d.wave, d.slices, func.count()).where(d.rollout_id == rollout.id)
    counted: dict[Slice, list[tuple[str, int]]] = defaultdict(list)
    for outcome, wave, slices, number in session.execute(
        query.group_by(d.outcome, d.wave, d.slices)
    ):
        seen = counts_as(policy, rollout.wave, outcome, wave)
        if seen is not None:
            for part in slices.items():
                counted[part].append((seen, number))
    return {part: _outcomes(numbers) for part, numbers in counted.items()}


def _reasons(session: Session, rollout: RolloutRow, policy: Policy) -> dict[str, int]:
    d = RolloutDeviceRow
    since = 0 if policy.in_shadow(rollout.wave) else policy.first_switching
    mine = d.rollout_id == rollout.id, d.wave >= since
    failed = *mine, d.outcome.in_(DID_NOT), d.reason.is_not(None)
    query = select(d.reason, func.count()).where(*failed).group_by(d.reason)
    return {reason: number for reason, number in session.execute(query) if reason}


def _samples(session: Session, rollout: RolloutRow, name: str) -> Sequence[Sample]:
    """The windows of both arms in the order in which they came; of each arm so many at most."""
    arms = (_of_arm(session, rollout, name, arm) for arm in (NEW, OLD))
    return [sample for _, sample in merge(*arms, key=itemgetter(0))]


def _of_arm(
    session: Session, rollout: RolloutRow, name: str, arm: str
) -> Iterator[tuple[int, Sample]]:
    s = RolloutSampleRow
    known = s.value, s.reference, s.slices, s.at, s.ended_at, s.seconds, s.count
    columns = s.id, s.device_id, *known
    mine = s.rollout_id == rollout.id, s.metric == name, s.arm == arm
    rows = session.execute(select(*columns).where(*mine).order_by(s.id).limit(MOST_SAMPLES))
    for id, device, value, reference, slices, at, ended_at, seconds, calls in rows:
        ended, lasted = (ended_at or at).timestamp(), seconds or 0.0
        yield id, Sample(device, arm == NEW, value, reference, slices, ended, lasted, calls)


def _heard_s(session: Session, rollout: RolloutRow, now: datetime) -> dict[str, float]:
    s = RolloutSampleRow
    mine = s.rollout_id == rollout.id, s.arm == NEW
    first = select(s.metric, func.min(s.at)).where(*mine).group_by(s.metric)
    return {
        name: max(0.0, (now - at).total_seconds()) for name, at in session.execute(first).tuples()
    }


def _in_use_s(
    session: Session, rollout: RolloutRow, now: datetime, *, in_shadow: bool
) -> float | None:
    """How long ago the first device switched, or began its shadow."""
    d = RolloutDeviceRow
    query = select(func.min(d.changed_at if in_shadow else d.switched_at))
    if in_shadow:
        query = query.where(d.outcome == SHADOWING)
    first = session.scalar(query.where(d.rollout_id == rollout.id))
    return None if first is None else max(0.0, (now - first).total_seconds())

"""Draw the picture of one rollout from the database. Its cost does not grow with the fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from pilotwave_protocol.shadow import DISAGREE, ERROR
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.rollouts.assignments.resolve import Candidate, may_not_be_offered
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot
from pilotwave_server.rollouts.engine import evidence
from pilotwave_server.rollouts.engine.intervals import intervals, reports_every
from pilotwave_server.rollouts.engine.measure import still_on
from pilotwave_server.rollouts.engine.picture import Moment, OpenWave, Picture
from pilotwave_server.rollouts.gates.data import series
from pilotwave_server.rollouts.gates.judge import judge
from pilotwave_server.rollouts.gates.verdict import Verdict
from pilotwave_server.rollouts.leases import SHADOWING, SWITCHED, UNUSED
from pilotwave_server.rollouts.policies.policy import Policy
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.shadow_outcomes import counted_as
from pilotwave_server.rollouts.states import OFFERING, RolloutState
from pilotwave_server.rollouts.tables import (
    DecisionRow,
    RolloutDeviceRow,
    RolloutRow,
    RolloutSampleRow,
    RolloutWaveRow,
)
from pilotwave_server.rollouts.transitions import group_of, name_of

ACTIVE = (RolloutState.SCHEDULED, *sorted(OFFERING), RolloutState.ROLLING_BACK)
AHEAD = timedelta(seconds=60)
CALLS = (series(ERROR, "mean"), series(DISAGREE, "mean"))
"""The series whose windows tell how often a device gave an input to both versions."""


def active_rollouts(session: Session) -> list[int]:
    """The numbers of the rollouts that the engine looks after, the oldest first."""
    states = [str(state) for state in ACTIVE]
    return list(
        session.scalars(
            select(RolloutRow.id).where(RolloutRow.state.in_(states)).order_by(RolloutRow.id)
        )
    )


def look(
    session: Session, snapshot: FleetSnapshot, rollout_id: int, moment: Moment
) -> Picture | None:
    """The rollout as it is; None if there is nothing to look after."""
    row = session.get(RolloutRow, rollout_id, populate_existing=True)
    if row is None or row.state not in ACTIVE:
        return None
    policy, state = stored_policy(row.document), RolloutState(row.state)
    known: dict[str, Any] = {}
    if state in OFFERING:
        open = _open_wave(session, row)
        known = {
            "open": open,
            **_counts(session, row, policy),
            **(_comparing(session, row, policy) if policy.in_shadow(row.wave) else {}),
            **_overdue(session, row, policy, moment),
            "verdicts": _verdicts(session, row, policy, moment) if open else (),
            "withheld": _withheld(snapshot, row),
            "overruled": overruled(row),
        }
    elif state is RolloutState.SCHEDULED:
        known = {"withheld": _withheld(snapshot, row)}
    else:
        way_back = _way_back(session, snapshot, row, policy, moment)
        known = {"open": _open_wave(session, row), **way_back}
    return Picture(
        id=row.id,
        name=name_of(row),
        state=state,
        generation=row.generation,
        policy=policy,
        model=row.model,
        version=row.version,
        group=group_of(session, row).name,
        start_at=row.start_at,
        end_at=row.end_at,
        **known,
    )


def _open_wave(session: Session, row: RolloutRow) -> OpenWave | None:
    wave = session.get(RolloutWaveRow, (row.id, row.wave), populate_existing=True)
    if wave is None:
        return None
    return OpenWave(wave.wave, wave.opened_at, wave.soaking_since, wave.verdict)


def _counts(session: Session, row: RolloutRow, policy: Policy) -> dict[str, Any]:
    d = RolloutDeviceRow
    columns = d.outcome, d.wave, func.count(), func.max(d.changed_at)
    query = select(*columns).where(d.rollout_id == row.id)
    found = session.execute(query.group_by(d.outcome, d.wave)).tuples().all()
    counts: Counter[str] = Counter()
    for outcome, number in counted_as(policy, row.wave, ((o, w, n) for o, w, n, _ in found)):
        counts[outcome] += number
    last = max((changed for *_, changed in found), default=None)
    return {"counts": dict(counts), "last_change": last}


def _comparing(session: Session, row: RolloutRow, policy: Policy) -> dict[str, Any]:
    """What the devices of a shadow wave have compared."""
    d, s, shadow = RolloutDeviceRow, RolloutSampleRow, policy.waves[row.wave].shadow
    least = 1 if shadow is None else shadow.min_calls
    began = select(func.min(d.changed_at)).where(d.rollout_id == row.id, d.outcome == SHADOWING)
    mine = select(s.device_id).where(s.rollout_id == row.id, s.metric.in_(CALLS))
    per_metric = mine.group_by(s.device_id, s.metric)
    enough = per_metric.having(func.sum(s.count) >= least).subquery()

    def number(of: Any) -> int:
        return session.scalar(select(func.count(of.c.device_id.distinct()))) or 0

    return {
        "shadow_since": session.scalar(began),
        "comparing": number(per_metric.subquery()),
        "compared": number(enough),
    }


def _overdue(session: Session, row: RolloutRow, policy: Policy, moment: Moment) -> dict[str, Any]:
    """Count leases and devices over their deadlines; none is while nobody has listened so long."""
    idle, lease_s = 0, policy.deadlines.lease_s
    if moment.waited(moment.listening_since) >= lease_s:
        rules = overdue_leases(row.id, moment.before(lease_s), moment.now)
        count = select(func.count()).select_from(RolloutDeviceRow).where(*rules)
        idle = session.scalar(count) or 0
    return {"idle_leases": idle, "silent": tuple(_silent(session, row, policy, moment))}


def _silent(
    session: Session, row: RolloutRow, policy: Policy, moment: Moment
) -> Iterator[int | None]:
    """The intervals of devices over their deadlines: of those over the policy's, the ones for which
    that is two reports or more."""
    listened = moment.waited(moment.listening_since)
    if listened < policy.deadlines.silent_s:
        return
    d = RolloutDeviceRow
    late = _quiet(row.id, moment.before(policy.deadlines.silent_s), moment.now)
    for every_s in intervals(session, late):
        silent_s = moment.silent_s(policy, every_s)
        rules = overdue_trials(row.id, every_s, moment.before(silent_s), moment.now)
        if listened >= silent_s and session.scalar(select(d.device_id).where(*rules).limit(1)):
            yield every_s


def overdue_leases(rollout_id: int, before: datetime, now: datetime) -> list[ColumnElement[bool]]:
    """What holds for leases that were given before then, or in a future that a clock made up."""
    d = RolloutDeviceRow
    late = or_(d.changed_at <= before, d.changed_at > now + AHEAD)
    return [d.rollout_id == rollout_id, d.outcome.in_(UNUSED), late]


def overdue_trials(
    rollout_id: int, every_s: int | None, before: datetime, now: datetime
) -> list[ColumnElement[bool]]:
    """What holds for devices of this interval that switched, and said nothing since then."""
    d, device = RolloutDeviceRow, DeviceRow
    switched, late, unheard = _quiet(rollout_id, before, now)
    quiet = device.id == d.device_id, reports_every(every_s), unheard
    return [switched, late, select(device.id).where(*quiet).exists()]


def _quiet(rollout_id: int, before: datetime, now: datetime) -> list[ColumnElement[bool]]:
    """That a device switched; that this was before then; that it was not heard since then. Times in
    the future are those of a clock that jumped."""
    d, heard = RolloutDeviceRow, DeviceRow.last_check_in
    switched = and_(d.rollout_id == rollout_id, d.outcome == SWITCHED)
    late = or_(d.changed_at <= before, d.changed_at > now + AHEAD)
    unheard = or_(heard.is_(None), heard <= before, heard > now + AHEAD)
    return [switched, late, unheard]


def _verdicts(
    session: Session, row: RolloutRow, policy: Policy, moment: Moment
) -> tuple[Verdict, ...]:
    """What the open wave's gates say, but for those that an operator overruled in this wave."""
    gates = [g for g in policy.waves[row.wave].gates if g.name not in overruled(row)]
    if not gates:
        return ()
    found = evidence.load(session, row, policy, moment.now, check_in_s=moment.check_in_s)
    return tuple(verdict for gate in gates for verdict in judge(gate, found))


def overruled(row: RolloutRow) -> frozenset[str]:
    """The gates that failed (or could not be judged) in the open wave before it was resumed."""
    failure = row.failure or {}
    if row.state != RolloutState.RUNNING or failure.get("wave") != row.wave:
        return frozenset()
    told = failure.get("gates", [])
    return frozenset(v["gate"] for v in told if v["word"] in ("FAIL", "INCONCLUSIVE"))


def _withheld(snapshot: FleetSnapshot, row: RolloutRow) -> str | None:
    anyone_in_it = DeviceView(name="", groups=frozenset({row.group_id}))
    hold = may_not_be_offered(anyone_in_it, snapshot, Candidate("rollout", row.model, row.version))
    return None if hold is None else hold.sentence


def _way_back(
    session: Session, snapshot: FleetSnapshot, row: RolloutRow, policy: Policy, moment: Moment
) -> dict[str, Any]:
    d = DecisionRow
    began = select(func.max(d.at)).where(d.rollout_id == row.id, d.action == "rollback")

    def heard_after(every_s: int | None) -> datetime:
        return moment.before(moment.silent_s(policy, every_s))

    found = still_on(session, snapshot, row, heard_after=heard_after)
    return {
        "check_in_s": found.check_in_s,
        "still_on": found.leaving,
        "unheard": found.unheard,
        "kept": found.kept,
        "rolling_back_since": session.scalar(began),
    }

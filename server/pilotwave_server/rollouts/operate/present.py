"""Turn rollouts into what the API answers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import PRIME
from pilotwave_server.errors import ServerError
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.paging import PageRequest
from pilotwave_server.registry.service import Released
from pilotwave_server.rollouts.assignments.fitting import Fitting, count_fitting
from pilotwave_server.rollouts.choice.store import read_trials
from pilotwave_server.rollouts.choice.trial import NO_TRIALS
from pilotwave_server.rollouts.leases import DID_NOT, HEALTHY, IN_FLIGHT, SHADOWING, SILENT
from pilotwave_server.rollouts.operate import queries
from pilotwave_server.rollouts.operate.create import warnings
from pilotwave_server.rollouts.operate.preview import (
    OUTSIDE,
    PlannedDevice,
    count_able,
    count_by_wave,
    count_pinned,
    planned,
    thresholds,
)
from pilotwave_server.rollouts.operate.views import (
    DecisionView,
    PlannedDeviceView,
    PlannedWaveView,
    PreviewView,
    RolloutDetail,
    RolloutDeviceView,
    RolloutSummary,
    WaveView,
)
from pilotwave_server.rollouts.policies.policy import Policy, Wave
from pilotwave_server.rollouts.policies.stored import plain_policy, stored_policy
from pilotwave_server.rollouts.policies.wave_words import rule_of
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.rollouts.tables import (
    DecisionRow,
    RolloutDeviceRow,
    RolloutRow,
    RolloutWaveRow,
)
from pilotwave_server.rollouts.transitions import group_of, name_of
from pilotwave_server.rollouts.waves import Salt, not_pinned

LAST_DECISIONS = PageRequest(limit=10)


def summary(row: RolloutRow, group: str) -> RolloutSummary:
    """One line of a list."""
    policy = stored_policy(row.document)
    return RolloutSummary(
        id=name_of(row),
        group=group,
        model=row.model,
        version=row.version,
        policy=row.policy,
        policy_version=row.policy_version,
        state=RolloutState(row.state),
        wave=row.wave,
        wave_count=len(policy.waves),
        open_wave=policy.waves[row.wave].name if row.wave >= 0 else None,
        description=row.description,
        reason=row.reason,
        created_by=row.created_by,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def detail(session: Session, row: RolloutRow, *, now: datetime) -> RolloutDetail:
    """All that there is to say, with counts and the last decisions."""
    policy = stored_policy(row.document)
    outcomes = queries.outcomes_by_wave(session, row)
    opened = queries.opened_waves(session, row)
    last, _ = queries.list_decisions(session, row, page=LAST_DECISIONS)
    return RolloutDetail(
        **summary(row, group_of(session, row).name).model_dump(),
        approved_by=row.approved_by,
        approved_at=row.approved_at,
        paused_by=row.paused_by,
        start_at=row.start_at,
        end_at=row.end_at,
        attempt=row.attempt,
        reached_percent=100 * row.threshold / PRIME,
        failure=row.failure,
        document=plain_policy(policy),
        waves=[
            _wave(index, wave, opened.get(index), outcomes.get(index, {}))
            for index, wave in enumerate(policy.waves)
        ],
        pace=queries.pace_now(session, row, policy, now=now),
        decisions=[decision(found) for found in last],
    )


def _wave(index: int, wave: Wave, row: RolloutWaveRow | None, outcomes: dict[str, int]) -> WaveView:
    def several(*kinds: str) -> int:
        return sum(outcomes.get(kind, 0) for kind in kinds)

    state: Literal["not open", "open", "closed"] = "not open"
    if row is not None:
        state = "open" if row.closed_at is None else "closed"
    return WaveView(
        index=index,
        name=wave.name,
        takes=rule_of(wave),
        state=state,
        opened_at=row.opened_at if row else None,
        soaking_since=row.soaking_since if row else None,
        closed_at=row.closed_at if row else None,
        reached=sum(outcomes.values()),
        in_flight=several(*IN_FLIGHT),
        healthy=several(HEALTHY),
        in_shadow=several(SHADOWING),
        failed=several(*DID_NOT, SILENT),
        outcomes=outcomes,
        verdict=row.verdict if row else None,
    )


def decision(row: DecisionRow) -> DecisionView:
    """One decision."""
    return DecisionView.model_validate(row)


def device(name: str, row: RolloutDeviceRow) -> RolloutDeviceView:
    """What came of the rollout on one device."""
    fields = RolloutDeviceView.model_fields.keys() - {"device"}
    return RolloutDeviceView(device=name, **{field: getattr(row, field) for field in fields})


def preview(
    session: Session,
    group: GroupRow,
    row: RolloutRow,
    policy: Policy,
    version: Released,
    *,
    page: PageRequest,
    wave: int | None,
    refusal: ServerError | None = None,
) -> PreviewView:
    """Who is in which wave, and what each would get. The counts read the whole group."""
    bounds = thresholds(session, group, row, policy)
    counts = count_by_wave(session, group, row, policy, bounds)
    able = count_able(session, group, row, policy, version.version, bounds)
    trials = read_trials(session, {version.sha256}) if policy.choose else NO_TRIALS
    unpinned, by = not_pinned(version.model), policy.choose
    fitting: Fitting = count_fitting(session, group, version, unpinned, choose=by, trials=trials)
    found, cursor = planned(
        *(session, group, row, policy, version),
        bounds=bounds,
        page=page,
        wave=wave,
        trials=trials,
    )
    return PreviewView(
        salt=str(Salt(row.multiplier, row.offset)),
        pinned=count_pinned(session, group, version.model),
        outside=counts.get(OUTSIDE, 0),
        waves=[
            PlannedWaveView(
                index=n,
                name=w.name,
                takes=rule_of(w),
                devices=counts.get(n, 0),
                in_shadow=w.shadow is not None,
                able=able.get(n, 0) if w.shadow else None,
            )
            for n, w in enumerate(policy.waves)
        ],
        **asdict(fitting),
        warnings=list(
            warnings(session, group, policy, model=version.model, version=version.version)
        ),
        refusal=refusal.code if refusal else None,
        refusal_sentence=refusal.detail if refusal else None,
        items=[_planned(item) for item in found],
        next_cursor=cursor,
    )


def _planned(item: PlannedDevice) -> PlannedDeviceView:
    return PlannedDeviceView(
        device=item.name,
        wave=item.wave,
        variant=item.variant,
        hold=str(item.hold.reason) if item.hold else None,
        sentence=item.hold.sentence if item.hold else None,
        pinned=item.pinned,
    )

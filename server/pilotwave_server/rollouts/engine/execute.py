"""Carry out what was planned: one small function for each action, each in a transaction of its own.

A step compares and sets the rollout's generation, so of any number of engines one takes it. The
other actions say under which conditions they change what, so that twice is once. Locks are taken in
the order that `service.py` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from pilotwave_server.db import lock_fleet
from pilotwave_server.rollouts import transitions
from pilotwave_server.rollouts.assignments.baselines import set_baseline
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.engine.actions import (
    Abort,
    CallSilent,
    Complete,
    EndRollback,
    ExpireLeases,
    OpenNext,
    Pause,
    PlannedStep,
    RollBack,
    Soak,
    Start,
    Tell,
)
from pilotwave_server.rollouts.engine.observe import overdue_leases, overdue_trials
from pilotwave_server.rollouts.leases import EXPIRED, SILENT, revise
from pilotwave_server.rollouts.policies.stored import stored_policy
from pilotwave_server.rollouts.states import RolloutState
from pilotwave_server.rollouts.tables import RolloutDeviceRow, RolloutRow, RolloutWaveRow
from pilotwave_server.rollouts.transitions import RolloutMoved, group_of, transition

ACTOR = "server"
SILENCE = "said nothing in time after the switch"
_QUIETLY = {"synchronize_session": False}


def execute(session: Session, action: Any, snapshot: FleetSnapshot, *, now: datetime) -> None:
    """Carry out one action. RolloutMoved if its step was taken, or the rollout changed, before."""
    if isinstance(action, Complete):
        _complete(session, action, snapshot, now)
        return
    lock_fleet(session)
    _EXECUTORS[type(action)](session, action, now)


def _seen(session: Session, step: PlannedStep) -> RolloutRow:
    """The rollout, if it is still as it was when the step was planned."""
    row = session.get(RolloutRow, step.rollout, populate_existing=True)
    if row is None or row.generation != step.generation:
        raise RolloutMoved(f"r{step.rollout} has changed since")
    return row


def _told(step: PlannedStep, now: datetime) -> dict[str, Any]:
    verdict = None if step.verdict is None else str(step.verdict.word)
    told = {"verdict": verdict, "numbers": step.numbers, "judged": step.judged}
    return {"actor": ACTOR, "now": now, **told}


def _start(session: Session, step: Start, now: datetime) -> None:
    told = _told(step, now)
    row = _seen(session, step)
    transition(session, row, RolloutState.RUNNING, action="start", sentence=step.sentence, **told)


def _abort(session: Session, step: Abort, now: datetime) -> None:
    told = _told(step, now)
    row = _seen(session, step)
    transition(session, row, RolloutState.ABORTED, action="abort", sentence=step.sentence, **told)


def _open_next(session: Session, step: OpenNext, now: datetime) -> None:
    row = _seen(session, step)
    policy = stored_policy(row.document)
    told = {**_told(step, now), "sentence": step.sentence}
    transitions.open_wave(session, row, policy, step.wave, threshold=step.threshold, **told)


def _pause(session: Session, step: Pause, now: datetime) -> None:
    row, told = _seen(session, step), _told(step, now)
    transition(session, row, RolloutState.PAUSED, action="pause", sentence=step.sentence, **told)


def _roll_back(session: Session, step: RollBack, now: datetime) -> None:
    row = _seen(session, step)
    told = _told(step, now)
    transitions.roll_back(session, row, reason=step.sentence, **told)


def _end_rollback(session: Session, step: EndRollback, now: datetime) -> None:
    row, told = _seen(session, step), _told(step, now)
    told["reason"] = row.reason  # why it went back is what people want to read on it
    done = RolloutState.ROLLED_BACK
    transition(session, row, done, action="rolled_back", sentence=step.sentence, **told)


def _complete(session: Session, step: Complete, snapshot: FleetSnapshot, now: datetime) -> None:
    row = _seen(session, step)
    group = group_of(session, row).name
    named = {"group": group, "model": row.model, "version": row.version}
    # locks the group before the fleet, as all who set baselines do
    policy = stored_policy(row.document)
    set_baseline(
        session,
        snapshot,
        **named,
        actor=ACTOR,
        now=now,
        together=policy.together,
        choose=policy.choose,
    )
    done, told = RolloutState.COMPLETED, _told(step, now)
    transition(session, row, done, action="complete", sentence=step.sentence, **told)


def _expire_leases(session: Session, action: ExpireLeases, now: datetime) -> None:
    rules = overdue_leases(action.rollout, action.before, now)
    _become(session, rules, now, outcome=EXPIRED, reason="lease_expired", revised=True)


def _call_silent(session: Session, action: CallSilent, now: datetime) -> None:
    rules = overdue_trials(action.rollout, action.every_s, action.before, now)
    _become(session, rules, now, outcome=SILENT, reason=SILENT, detail=SILENCE)


def _become(
    session: Session, rules: list[Any], now: datetime, *, revised: bool = False, **values: Any
) -> None:
    d = RolloutDeviceRow
    changed = session.scalars(
        update(d).where(*rules).values(changed_at=now, **values).returning(d.device_id),
        execution_options=_QUIETLY,
    )
    ids = sorted(changed)
    if revised:
        revise(session, ids)


def _soak(session: Session, action: Soak, now: datetime) -> None:
    w = RolloutWaveRow
    mine = w.rollout_id == action.rollout, w.wave == action.wave
    session.execute(
        update(w).where(*mine).values(soaking_since=action.since), execution_options=_QUIETLY
    )


def _tell(session: Session, action: Tell, now: datetime) -> None:
    row = session.get(RolloutWaveRow, (action.rollout, action.wave), populate_existing=True)
    # of engines that have listened for different times, one is heard
    if row is not None and row.closed_at is None and row.verdict == action.instead_of:
        row.verdict = dict(action.verdict)


_EXECUTORS: dict[type[Any], Callable[[Session, Any, datetime], None]] = {
    Start: _start,
    Abort: _abort,
    OpenNext: _open_next,
    Pause: _pause,
    RollBack: _roll_back,
    EndRollback: _end_rollback,
    ExpireLeases: _expire_leases,
    CallSilent: _call_silent,
    Soak: _soak,
    Tell: _tell,
}

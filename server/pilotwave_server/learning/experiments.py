"""Experiments: carry a training plan out in a group. Begin one, find it, change its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from sqlalchemy import select, update
from sqlalchemy.orm import Session
from tuf.api.metadata import Targets

from pilotwave_protocol import names, signing
from pilotwave_protocol.learning.device_plan import DevicePlan, parse_any_plan
from pilotwave_protocol.learning.plan import TrainingPlan, parse_plan
from pilotwave_server.audit.service import record
from pilotwave_server.errors import Conflict, NotFound
from pilotwave_server.groups.service import count_devices, get_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.learning.policy import LearnPolicy, store_policy
from pilotwave_server.learning.rounds import open_round
from pilotwave_server.learning.states import CAME_TO_NOTHING, TRANSITIONS, ExperimentState
from pilotwave_server.learning.tables import ExperimentRow
from pilotwave_server.learning.waves import open_wave
from pilotwave_server.paging import PageRequest, paginate
from pilotwave_server.registry import documents
from pilotwave_server.registry.tables import PlanRow, VersionRow
from pilotwave_server.rollouts.waves import draw_salt

_VERBS = {
    ExperimentState.RUNNING: "learning.resume",
    ExperimentState.PAUSED: "learning.pause",
    ExperimentState.COMPLETED: "learning.complete",
    ExperimentState.FAILED: "learning.fail",
    ExperimentState.STOPPED: "learning.stop",
}


class PlanUnknown(NotFound):
    """The model's role names no such plan, or no plan has this digest."""

    code: ClassVar[str] = "plan_unknown"


class ExperimentUnknown(NotFound):
    code: ClassVar[str] = "experiment_unknown"


class ExperimentNotPossible(Conflict):
    """The plan has an experiment already, or is over, or of the scope `device`; or its version was
    taken back."""

    code: ClassVar[str] = "experiment_not_possible"


class WrongExperimentState(Conflict):
    """The experiment's state does not allow the step. `state` says which it is in."""

    code: ClassVar[str] = "wrong_experiment_state"


def start(
    session: Session,
    *,
    model: str,
    plan: str,
    group: str,
    policy: LearnPolicy,
    actor: str,
    now: datetime,
) -> ExperimentRow:
    """Begin with the first round. PlanUnknown, ExperimentNotPossible, GroupUnknown."""
    row, read = _plan(session, model, plan)
    where = get_group(session, group)
    _check_possible(session, row, read, now)
    _check_enough(session, where, read)
    salt = draw_salt()
    made = ExperimentRow(
        plan_id=row.id,
        model=model,
        plan=plan,
        plan_sha256=row.sha256,
        group_id=where.id,
        group=group,
        policy=store_policy(policy),
        multiplier=salt.multiplier,
        offset=salt.offset,
        threshold=0,
        wave_opened_at=now,
        state=str(ExperimentState.RUNNING),
        opened_at=now,
        opened_by=actor,
    )
    session.add(made)
    session.flush()
    open_wave(session, made, policy, 0, now=now)
    open_round(session, made, read, 1, now=now)
    _note(session, made, "learning.start", actor=actor, now=now)
    return made


def _check_possible(session: Session, row: PlanRow, plan: TrainingPlan, now: datetime) -> None:
    named = f"plan {plan.plan} of {plan.model}"
    if plan.deadline <= now:
        raise ExperimentNotPossible(f"{named} ended at {plan.deadline:%Y-%m-%d %H:%M} UTC")
    v, e = VersionRow, ExperimentRow
    base = session.scalar(select(v).where(v.model == plan.model, v.version == plan.base.version))
    if base is None or base.yanked_at is not None or base.denied_at is not None:
        raise ExperimentNotPossible(f"{plan.model} {plan.base.version} was taken back")
    query = select(e).where(e.plan_id == row.id, e.state.not_in(CAME_TO_NOTHING)).limit(1)
    before = session.scalar(query)
    if before is not None:
        raise ExperimentNotPossible(f"{named} has experiment {before.id}: it is {before.state}")


def _check_enough(session: Session, group: GroupRow, plan: TrainingPlan) -> None:
    """What noise promises takes so many devices that a group without them is not asked at all."""
    here = count_devices(session, group) if plan.noise else plan.least_devices
    if here < plan.least_devices:
        raise ExperimentNotPossible(
            f"group {group.name} has {here} devices; the noise of plan {plan.plan} takes"
            f" {plan.least_devices}"
        )


def _plan(session: Session, model: str, plan: str) -> tuple[PlanRow, TrainingPlan]:
    """The plan of this name that the model's publisher stands by now."""
    p = PlanRow
    row = session.scalar(select(p).where(p.model == model, p.name == plan).with_for_update())
    if row is None or plans_held(session, model).get(plan) != row.sha256:
        raise PlanUnknown(f"the publisher of {model} stands by no plan {plan}")
    read = parse_any_plan(row.content)
    if isinstance(read, DevicePlan):
        raise ExperimentNotPossible(
            f"plan {plan} of {model} has the scope device: devices carry it out by themselves"
        )
    return row, read


def plans_held(session: Session, model: str) -> Mapping[str, str]:
    """The plans that a model's publisher stands by now: their digests by their names."""
    role = documents.load(session, names.role_for_model(model), Targets)
    return signing.policy_of(role.signed, model).plans if role else {}


def content_of(session: Session, sha256: str) -> bytes:
    """Return a plan's bytes by their digest, or raise PlanUnknown."""
    found = session.scalar(select(PlanRow.content).where(PlanRow.sha256 == sha256).limit(1))
    if found is None:
        raise PlanUnknown(f"there is no plan {sha256}")
    return found


def plan_of(session: Session, experiment: ExperimentRow) -> TrainingPlan:
    """The plan of an experiment."""
    return parse_plan(session.get_one(PlanRow, experiment.plan_id).content)


def find(session: Session, number: int, *, lock: bool = False) -> ExperimentRow:
    """One experiment, or ExperimentUnknown. Locks are taken in this order: experiment, round."""
    found = session.get(ExperimentRow, number, with_for_update=lock, populate_existing=lock)
    if found is None:
        raise ExperimentUnknown(f"there is no experiment {number}")
    return found


def list_of(
    session: Session, *, model: str | None, page: PageRequest
) -> tuple[Sequence[ExperimentRow], str | None]:
    """The experiments, of a model if one is named, the newest first."""
    query = select(ExperimentRow)
    query = query.where(ExperimentRow.model == model) if model else query
    return paginate(session, query, keys=[ExperimentRow.id], page=page, descending=True)


def move(
    session: Session,
    experiment: ExperimentRow,
    to: ExperimentState,
    *,
    actor: str,
    now: datetime,
    detail: str | None = None,
) -> None:
    """Take one step from the state that `experiment` was read in. WrongExperimentState.

    `detail` is the sentence that people read.
    """
    before = ExperimentState(experiment.state)
    if to not in TRANSITIONS[before]:
        raise WrongExperimentState(f"experiment {experiment.id} is {before}", state=str(before))
    values: dict[str, object] = {
        "state": str(to),
        "detail": None if detail is None else detail[:512],
    }
    if not TRANSITIONS[to]:
        values |= {"ended_at": now, "ended_by": actor}
    e = ExperimentRow
    done = session.execute(
        update(e).where(e.id == experiment.id, e.state == str(before)).values(**values)
    )
    if not getattr(done, "rowcount", 0):
        raise WrongExperimentState(f"experiment {experiment.id} has just changed; look again")
    session.refresh(experiment)
    _note(session, experiment, _VERBS[to], actor=actor, now=now)


def _note(
    session: Session, experiment: ExperimentRow, verb: str, *, actor: str, now: datetime
) -> None:
    told = {"id": experiment.id, "plan": experiment.plan, "group": experiment.group}
    if experiment.detail is not None:
        told["detail"] = experiment.detail
    where = f"model/{experiment.model}"
    record(session, actor=actor, verb=verb, object=where, now=now, after=told)

"""Open rounds of training plans, and say which of them a device may take part in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Targets

from pilotwave_protocol import names, signing
from pilotwave_protocol.learning.plan import TrainingPlan, parse_plan
from pilotwave_server.audit.service import record
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import Conflict, NotFound
from pilotwave_server.groups.service import get_group, groups_of
from pilotwave_server.learning.tables import RoundRow, UpdateRow
from pilotwave_server.paging import PageRequest, paginate
from pilotwave_server.registry import documents
from pilotwave_server.registry.tables import PlanRow, VersionRow

OPEN, CLOSING, DONE, FAILED = "open", "closing", "done", "failed"


class PlanUnknown(NotFound):
    """The model's role names no such plan."""

    code: ClassVar[str] = "plan_unknown"


class RoundUnknown(NotFound):
    code: ClassVar[str] = "round_unknown"


class RoundNotPossible(Conflict):
    """The plan has a round already, its time is over, or its version was taken back."""

    code: ClassVar[str] = "round_not_possible"


def start(
    session: Session, *, model: str, plan: str, group: str, actor: str, now: datetime
) -> RoundRow:
    """Open the round of a plan in a group. PlanUnknown, RoundNotPossible, GroupUnknown."""
    row, read = _plan(session, model, plan)
    where = get_group(session, group)
    if read.deadline <= now:
        raise RoundNotPossible(
            f"plan {plan} of {model} ended at {read.deadline:%Y-%m-%d %H:%M} UTC"
        )
    v = VersionRow
    base = session.scalar(select(v).where(v.model == model, v.version == read.base.version))
    if base is None or base.yanked_at is not None or base.denied_at is not None:
        raise RoundNotPossible(f"{model} {read.base.version} was taken back")
    r = RoundRow
    before = session.scalar(select(r).where(r.plan_id == row.id, r.state != FAILED))
    if before is not None:
        raise RoundNotPossible(
            f"plan {plan} of {model} has round {before.id}: it is {before.state}"
        )
    made = r(
        plan_id=row.id,
        model=model,
        plan=plan,
        plan_sha256=row.sha256,
        group_id=where.id,
        group=group,
        state=OPEN,
        opened_at=now,
        opened_by=actor,
        ends_at=read.deadline,
    )
    session.add(made)
    session.flush()
    told = {"id": made.id, "plan": plan, "group": group}
    record(
        session, actor=actor, verb="learning.start", object=f"model/{model}", now=now, after=told
    )
    return made


def _plan(session: Session, model: str, plan: str) -> tuple[PlanRow, TrainingPlan]:
    """The plan of this name that the model's publisher stands by now."""
    p = PlanRow
    row = session.scalar(select(p).where(p.model == model, p.name == plan))
    role = documents.load(session, names.role_for_model(model), Targets)
    holds = signing.policy_of(role.signed, model).plans if role else {}
    if row is None or holds.get(plan) != row.sha256:
        raise PlanUnknown(f"the publisher of {model} stands by no plan {plan}")
    return row, parse_plan(row.content)


def plan_of(session: Session, row: RoundRow) -> TrainingPlan:
    """The plan of a round."""
    return parse_plan(session.get_one(PlanRow, row.plan_id).content)


def find(session: Session, number: int) -> RoundRow:
    """One round, or RoundUnknown."""
    found = session.get(RoundRow, number)
    if found is None:
        raise RoundUnknown(f"there is no round {number}")
    return found


def list_of(
    session: Session, *, model: str | None, page: PageRequest
) -> tuple[Sequence[RoundRow], str | None]:
    """The rounds, of a model if one is named, the newest first."""
    query = select(RoundRow)
    query = query.where(RoundRow.model == model) if model else query
    return paginate(session, query, keys=[RoundRow.id], page=page, descending=True)


def updates_of(session: Session, rounds: Sequence[RoundRow]) -> dict[int, tuple[int, int]]:
    """How many devices have sent an update in each round, with how many examples in all."""
    u = UpdateRow
    query = select(u.round_id, func.count(), func.sum(u.examples)).group_by(u.round_id)
    query = query.where(u.round_id.in_([row.id for row in rounds]))
    return {number: (count, int(sum_)) for number, count, sum_ in session.execute(query).tuples()}


def open_for(session: Session, device: DeviceRow, now: datetime) -> list[tuple[RoundRow, bytes]]:
    """The open rounds that a device has not answered yet, with their plans."""
    u, r = UpdateRow, RoundRow
    answered = exists().where(u.round_id == r.id, u.device_id == device.id)
    query = select(r, PlanRow.content).join(PlanRow, PlanRow.id == r.plan_id)
    query = query.where(r.state == OPEN, r.ends_at > now, ~answered).order_by(r.id).limit(8)
    found = session.execute(query).tuples().all()
    mine = {group.id for group in groups_of(session, device)} if found else set()
    return [(row, content) for row, content in found if row.group_id in mine]

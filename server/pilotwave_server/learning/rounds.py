"""Rounds of experiments: open them, find them, and say which of them wait for a device."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import NotFound
from pilotwave_server.groups.service import groups_of
from pilotwave_server.learning.states import DONE, OPEN, ExperimentState
from pilotwave_server.learning.tables import ExperimentRow, RoundRow, UpdateRow
from pilotwave_server.registry.tables import PlanRow


class RoundUnknown(NotFound):
    code: ClassVar[str] = "round_unknown"


def open_round(
    session: Session, experiment: ExperimentRow, number: int, *, ends_at: datetime, now: datetime
) -> RoundRow:
    """Open the round `number` of an experiment."""
    made = RoundRow(
        experiment_id=experiment.id, number=number, state=OPEN, opened_at=now, ends_at=ends_at
    )
    session.add(made)
    session.flush()
    return made


def rounds_of(session: Session, experiment: ExperimentRow) -> list[RoundRow]:
    """All rounds of an experiment, the newest first."""
    r = RoundRow
    query = select(r).where(r.experiment_id == experiment.id).order_by(r.number.desc())
    return list(session.scalars(query))


def newest_rounds(session: Session, experiments: Sequence[ExperimentRow]) -> dict[int, RoundRow]:
    """The newest round of each experiment, by the experiment's number."""
    r = RoundRow
    newest = select(func.max(r.id)).where(r.experiment_id.in_([e.id for e in experiments]))
    query = select(r).where(r.id.in_(newest.group_by(r.experiment_id)))
    return {row.experiment_id: row for row in session.scalars(query)}


def find_round(session: Session, experiment: ExperimentRow, number: int | None) -> RoundRow:
    """A round of an experiment, the newest where no number is given; or RoundUnknown."""
    r = RoundRow
    query = select(r).where(r.experiment_id == experiment.id).order_by(r.number.desc()).limit(1)
    found = session.scalar(query if number is None else query.where(r.number == number))
    if found is None:
        raise RoundUnknown(f"experiment {experiment.id} has no round {number}")
    return found


def newest_head(session: Session, experiment: ExperimentRow) -> bytes | None:
    """The result of the newest round that is done; None while there is none."""
    r = RoundRow
    query = select(r.head).where(r.experiment_id == experiment.id, r.state == DONE)
    return session.scalar(query.order_by(r.number.desc()).limit(1))


def open_for(
    session: Session, device: DeviceRow, now: datetime
) -> list[tuple[RoundRow, ExperimentRow, bytes]]:
    """The open rounds that a device has not answered yet, with their plans."""
    u, r, e = UpdateRow, RoundRow, ExperimentRow
    answered = exists().where(u.round_id == r.id, u.device_id == device.id)
    query = select(r, e, PlanRow.content).join(e, e.id == r.experiment_id)
    query = query.join(PlanRow, PlanRow.id == e.plan_id)
    query = query.where(r.state == OPEN, r.ends_at > now, ~answered)
    query = query.where(e.state == str(ExperimentState.RUNNING)).order_by(r.id).limit(8)
    found = session.execute(query).tuples().all()
    mine = {group.id for group in groups_of(session, device)} if found else set()
    return [one for one in found if one[1].group_id in mine]

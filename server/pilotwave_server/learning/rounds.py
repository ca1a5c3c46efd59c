"""Rounds of experiments: open them, find them, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_server.errors import NotFound
from pilotwave_server.learning.states import DONE, OPEN
from pilotwave_server.learning.tables import ExperimentRow, RoundRow, UpdateRow


class RoundUnknown(NotFound):
    code: ClassVar[str] = "round_unknown"


def open_round(
    session: Session, experiment: ExperimentRow, plan: TrainingPlan, number: int, *, now: datetime
) -> RoundRow:
    """Open the round `number` of an experiment, for its share of the time that is left."""
    share = (plan.deadline - now) / (plan.rounds - number + 1)
    made = RoundRow(
        experiment_id=experiment.id, number=number, state=OPEN, opened_at=now, ends_at=now + share
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


def head_of(session: Session, experiment: ExperimentRow, number: int) -> bytes | None:
    """The result of a round, if there is one."""
    r = RoundRow
    return session.scalar(
        select(r.head).where(r.experiment_id == experiment.id, r.number == number)
    )


def best_round(session: Session, experiment: ExperimentRow) -> RoundRow | None:
    """The round whose result is the experiment's: the one that gets most of the publisher's own
    examples right; the newest that is done where they are as good, or there are none."""
    done = [row for row in rounds_of(session, experiment) if row.state == DONE]
    return max(
        done, key=lambda row: ((row.figures or {}).get("right", 0.0), row.number), default=None
    )


def all_answered(session: Session, where: RoundRow) -> bool:
    """Whether all that answered the round before this one have answered it."""
    r, u, now = RoundRow, UpdateRow, aliased(UpdateRow)
    before = session.scalar(
        select(r).where(r.experiment_id == where.experiment_id, r.number == where.number - 1)
    )
    if before is None or where.devices < before.devices:
        return False  # quickly, for each update but the last ones
    answered = exists().where(now.round_id == where.id, now.device_id == u.device_id)
    missing = select(u.id).where(u.round_id == before.id, ~answered).limit(1)
    return session.scalar(missing) is None

"""Rounds of experiments: open them, find them, and their results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.errors import NotFound
from pilotwave_server.learning.states import DONE, OPEN
from pilotwave_server.learning.tables import ExperimentRow, RoundRow


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

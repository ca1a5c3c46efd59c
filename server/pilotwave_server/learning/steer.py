"""The steps that operators take with an experiment: pause, resume, stop, end its round."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from sqlalchemy import update
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.errors import Conflict
from pilotwave_server.learning.experiments import find, move
from pilotwave_server.learning.forget import forget
from pilotwave_server.learning.rounds import find_round
from pilotwave_server.learning.states import CLOSING, FAILED, OPEN, ExperimentState
from pilotwave_server.learning.tables import ExperimentRow, RoundRow


class RoundNotOpen(Conflict):
    code: ClassVar[str] = "round_not_open"


def pause(session: Session, number: int, *, actor: str, now: datetime) -> None:
    """Ask no more devices; what still comes counts. ExperimentUnknown, WrongExperimentState."""
    experiment = find(session, number, lock=True)
    told = f"paused by {actor}"
    move(session, experiment, ExperimentState.PAUSED, actor=actor, now=now, detail=told)


def resume(session: Session, number: int, *, actor: str, now: datetime) -> None:
    """Ask devices again. ExperimentUnknown, WrongExperimentState."""
    move(session, find(session, number, lock=True), ExperimentState.RUNNING, actor=actor, now=now)


def stop(session: Session, number: int, *, actor: str, now: datetime, why: str = "") -> None:
    """End an experiment without a result of its open round, and delete the updates of that.

    ExperimentUnknown, WrongExperimentState.
    """
    experiment = find(session, number, lock=True)
    told = why or f"stopped by {actor}"
    move(session, experiment, ExperimentState.STOPPED, actor=actor, now=now, detail=told)
    forget_round(session, experiment, now=now)


def forget_round(session: Session, experiment: ExperimentRow, *, now: datetime) -> None:
    """End the round that is going on without a result, and delete its updates."""
    row = find_round(session, experiment, None)
    going = update(RoundRow).where(RoundRow.id == row.id, RoundRow.state.in_((OPEN, CLOSING)))
    session.execute(going.values(state=FAILED, ended_at=now))
    forget(session, row.id)


def end(session: Session, number: int, *, actor: str, now: datetime) -> int:
    """Let the open round take no more updates, and return which row it is: `finish.finish` makes a
    result of what came. ExperimentUnknown, RoundNotOpen."""
    experiment = find(session, number, lock=True)
    row = find_round(session, experiment, None)
    closed = update(RoundRow).where(RoundRow.id == row.id, RoundRow.state == OPEN)
    if not getattr(session.execute(closed.values(state=CLOSING)), "rowcount", 0):
        raise RoundNotOpen(f"round {row.number} of experiment {number} is {row.state}")
    told = {"id": number, "round": row.number}
    where = f"model/{experiment.model}"
    record(session, actor=actor, verb="learning.end", object=where, now=now, after=told)
    return row.id

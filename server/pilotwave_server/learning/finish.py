"""End rounds: make one head of all updates, keep it and what is told of it, forget the updates.

A round that closes takes no more updates. What is computed then is computed again after a crash, by
whichever process comes first: it is the same each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.examples import read_examples
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.statistics import read_head, write_numbers
from pilotwave_server.blobs.port import BlobMissing, BlobStore
from pilotwave_server.db import Database
from pilotwave_server.learning.experiments import find, move, plan_of
from pilotwave_server.learning.forget import forget
from pilotwave_server.learning.masked.tables import GroupRow
from pilotwave_server.learning.results import Result, result_of
from pilotwave_server.learning.rounds import best_round, head_of, open_round
from pilotwave_server.learning.states import CLOSING, DONE, FAILED, GOING, OPEN, ExperimentState
from pilotwave_server.learning.stored import StoredNumbers, UpdatesGone
from pilotwave_server.learning.sum_up import Validation
from pilotwave_server.learning.tables import ExperimentRow, RoundRow, UpdateRow


def finish_all(db: Database, blobs: BlobStore, *, now: datetime) -> None:
    """End the rounds whose time is over, and work out those that close."""
    r = RoundRow
    over = update(r).where(r.state == OPEN, r.ends_at <= now).values(state=CLOSING)
    with db.write() as session:
        session.execute(over)
    with db.read() as session:
        closing = list(session.scalars(select(r.id).where(r.state == CLOSING)))
    for number in closing:
        finish(db, blobs, number, now=now)


def finish(db: Database, blobs: BlobStore, number: int, *, now: datetime) -> None:
    """Work a round that closes out; `number` is its row's."""
    r = RoundRow
    with db.read() as session:
        where = session.get_one(r, number)
        experiment = find(session, where.experiment_id)
        plan = plan_of(session, experiment)
        earlier = head_of(session, experiment, where.number - 1)
        u = GroupRow if plan.privacy.masked else UpdateRow
        query = select(u.id).where(u.round_id == number, u.content.is_not(None)).order_by(u.id)
        ids = list(session.scalars(query))
        devices = where.devices if plan.privacy.masked else len(ids)
    try:
        stored = StoredNumbers(db, ids, plan.update_bytes, u)
        made = _made(plan, stored, blobs, earlier, devices=devices)
    except UpdatesGone:
        return  # if no other process has ended it, the next look begins anew
    values: dict[str, Any] = {"state": FAILED}
    if isinstance(made, Result):
        values = {"state": DONE, "figures": made.figures, "head": write_numbers(made.head)}
    with db.write() as session:
        experiment = find(session, experiment.id, lock=True)
        mine = update(r).where(r.id == number, r.state == CLOSING)
        done = session.execute(mine.values(ended_at=now, **values))
        if not getattr(done, "rowcount", 0):
            return  # another process came first, or the experiment was stopped
        forget(session, number)
        for out in made.left_out if isinstance(made, Result) else ():
            session.execute(update(u).where(u.id == ids[out.place]).values(gain=out.gain))
        if experiment.state in GOING:
            why = made if isinstance(made, str) else ""
            _go_on(session, experiment, plan, where.number, why, now=now)


def _made(
    plan: TrainingPlan,
    raw: Sequence[bytes],
    blobs: BlobStore,
    earlier: bytes | None,
    *,
    devices: int,
) -> Result | str:
    """What the updates make, or why they make nothing. UpdatesGone."""
    if devices < plan.least_devices:
        return f"{devices} of {plan.least_devices} devices took part"
    try:
        before = None
        if plan.head is not None:
            start = earlier or blobs.read(plan.head.sha256, plan.head_bytes)
            before = read_head(start, features=plan.features, classes=plan.classes)
        return result_of(plan, raw, before, _validation(plan, blobs))
    except (BlobMissing, BadMessage, np.linalg.LinAlgError) as error:
        return f"no head could be made: {error}"


def _validation(plan: TrainingPlan, blobs: BlobStore) -> Validation | None:
    """The publisher's own examples. BlobMissing, BadMessage."""
    if plan.validation is None:
        return None
    raw = blobs.read(plan.validation.sha256, plan.validation.size)
    rows, classes = plan.validation.rows, plan.classes
    return Validation(*read_examples(raw, rows=rows, features=plan.features, most=classes))


def _go_on(
    session: Session, experiment: ExperimentRow, plan: TrainingPlan, number: int, why: str, *,
    now: datetime,
) -> None:  # fmt: skip
    """Open the next round, or end the experiment with its last one or with one that failed."""
    if not why and number < plan.rounds and now < plan.deadline:
        open_round(session, experiment, plan, number + 1, now=now)
        return
    session.flush()
    best = best_round(session, experiment)
    told = f"round {number}: {why}" if why and plan.rounds > 1 else why
    if not why and number < plan.rounds:
        told = f"the plan's time ended with round {number} of {plan.rounds}"
    if best is not None and plan.rounds > 1:
        told = "; ".join(filter(None, [told, f"the result is that of round {best.number}"]))
    to = ExperimentState.FAILED if why else ExperimentState.COMPLETED
    move(session, experiment, to, actor="server", now=now, detail=told or None)

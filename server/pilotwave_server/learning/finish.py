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
from pilotwave_protocol.learning.plan import Aggregate, TrainingPlan
from pilotwave_protocol.learning.statistics import write_numbers
from pilotwave_server.blobs.port import BlobMissing, BlobStore
from pilotwave_server.db import Database
from pilotwave_server.learning.experiments import find, move, plan_of
from pilotwave_server.learning.states import CLOSING, DONE, FAILED, GOING, OPEN, ExperimentState
from pilotwave_server.learning.stored import StoredNumbers, UpdatesGone
from pilotwave_server.learning.sum_up import Packed, Summed, Validation, leave_one_out, sum_all
from pilotwave_server.learning.tables import ExperimentRow, RoundRow, UpdateRow
from pilotwave_server.learning.updates import forget_updates


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
    u, r = UpdateRow, RoundRow
    with db.read() as session:
        experiment = find(session, session.get_one(r, number).experiment_id)
        plan = plan_of(session, experiment)
        query = select(u.id).where(u.round_id == number, u.content.is_not(None)).order_by(u.id)
        ids = list(session.scalars(query))
    values: dict[str, Any]
    if len(ids) < plan.least_devices:
        summed, values = None, {"state": FAILED}
        why = f"{len(ids)} of {plan.least_devices} devices took part"
    else:
        try:
            stored = StoredNumbers(db, ids, plan.update_bytes)
            values, summed, why = _result(plan, stored, blobs)
        except UpdatesGone:
            return  # if no other process has ended it, the next look begins anew
    with db.write() as session:
        experiment = find(session, experiment.id, lock=True)
        mine = update(r).where(r.id == number, r.state == CLOSING)
        done = session.execute(mine.values(ended_at=now, **values))
        if not getattr(done, "rowcount", 0):
            return  # another process came first, or the experiment was stopped
        forget_updates(session, number)
        for out in summed.left_out if summed else ():
            session.execute(update(u).where(u.id == ids[out.place]).values(gain=out.gain))
        _go_on(session, experiment, values["state"], why, now=now)


def _go_on(
    session: Session, experiment: ExperimentRow, state: str, why: str, *, now: datetime
) -> None:
    """End the experiment with its last round."""
    if experiment.state in GOING:
        to = ExperimentState.COMPLETED if state == DONE else ExperimentState.FAILED
        move(session, experiment, to, actor="server", now=now, detail=why or None)


def _result(
    plan: TrainingPlan, raw: Sequence[bytes], blobs: BlobStore
) -> tuple[dict[str, Any], Summed | None, str]:
    """What the round's row is to hold, the sums, and why there are none."""
    updates = Packed(raw, features=plan.features, classes=plan.classes)
    figures: dict[str, Any] = {"devices": len(raw)}
    try:
        if plan.aggregate is Aggregate.LEAVE_ONE_OUT:
            validation = _validation(plan, blobs)
            summed = leave_one_out(updates, float(plan.penalty), validation)
            everyone = sum_all(updates, float(plan.penalty)).head
            figures["right"] = validation.share_right(summed.head)
            figures["right_with_all"] = validation.share_right(everyone)
        else:
            summed = sum_all(updates, float(plan.penalty))
    except (BlobMissing, BadMessage, np.linalg.LinAlgError) as error:
        return {"state": FAILED}, None, f"no head could be made: {error}"
    figures["left_out"] = len(summed.left_out)
    return {"state": DONE, "figures": figures, "head": write_numbers(summed.head)}, summed, ""


def _validation(plan: TrainingPlan, blobs: BlobStore) -> Validation:
    """The publisher's own examples. BlobMissing, BadMessage."""
    assert plan.validation is not None
    raw = blobs.read(plan.validation.sha256, plan.validation.size)
    rows, classes = plan.validation.rows, plan.classes
    return Validation(*read_examples(raw, rows=rows, features=plan.features, most=classes))

"""Stop experiments with plans that their publisher has dropped: no device answers those any more,
and what came is not to be used."""

from __future__ import annotations

import contextlib
from datetime import datetime

from sqlalchemy import select

from pilotwave_server.db import Database
from pilotwave_server.learning.experiments import WrongExperimentState, plans_held
from pilotwave_server.learning.states import GOING
from pilotwave_server.learning.steer import stop
from pilotwave_server.learning.tables import ExperimentRow


def stop_dropped(db: Database, *, now: datetime) -> None:
    """Look at each experiment that is going on."""
    e = ExperimentRow
    with db.read() as session:
        going = list(session.scalars(select(e).where(e.state.in_(GOING))))
        held = {model: plans_held(session, model) for model in {one.model for one in going}}
        gone = [one for one in going if held[one.model].get(one.plan) != one.plan_sha256]
    for one in gone:
        why = f"the publisher of {one.model} has dropped plan {one.plan}"
        with contextlib.suppress(WrongExperimentState), db.write() as session:
            stop(session, one.id, actor="server", now=now, why=why)

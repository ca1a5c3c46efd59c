"""The steps between the states of an experiment."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import product

import pytest

from pilotwave_server.db import Database
from pilotwave_server.learning.experiments import WrongExperimentState, move
from pilotwave_server.learning.states import TRANSITIONS, ExperimentState
from pilotwave_server.learning.tables import ExperimentRow
from pilotwave_server.registry.tables import ModelRow, PlanRow

NOW = datetime(2026, 1, 31, tzinfo=timezone.utc)


def test_each_pair_of_states_is_as_the_table_says(db: Database) -> None:
    pairs = list(product(ExperimentState, ExperimentState))
    with db.write() as session:
        plan = PlanRow(
            model="m", name="p", sha256="0" * 64, content=b"", published_at=NOW, published_by="x"
        )
        session.add(ModelRow(name="m", publishers=[], threshold=1, created_at=NOW, created_by="x"))
        session.flush()
        session.add(plan)
        session.flush()
        for before, after in pairs:
            row = ExperimentRow(
                plan_id=plan.id, model="m", plan="p", plan_sha256="0" * 64, group="g",
                policy={}, multiplier=1, offset=0, threshold=1, wave_opened_at=NOW,
                state=str(before), opened_at=NOW, opened_by="x",
            )  # fmt: skip
            session.add(row)
            session.flush()
            if after in TRANSITIONS[before]:
                move(session, row, after, actor="y", now=NOW, detail="why")
                assert (row.state, row.detail) == (str(after), "why")
                assert row.ended_by == (None if TRANSITIONS[after] else "y")
            else:
                with pytest.raises(WrongExperimentState):
                    move(session, row, after, actor="y", now=NOW)

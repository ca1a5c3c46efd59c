"""Who may steer an experiment: a limited token where its model and its group are the token's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends
from sqlalchemy.orm import Session

from pilotwave_server.deps import require
from pilotwave_server.learning.tables import ExperimentRow
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.scope import NOTHING, Resource, Touched


def _of_path(session: Session, names: Mapping[str, str]) -> Touched:
    number = names["experiment"]
    known = number.isascii() and number.isdigit() and len(number) < 19
    row = session.get(ExperimentRow, int(number)) if known else None
    return NOTHING if row is None else Touched(row.model, [row.group])


EXPERIMENT = Resource("experiment", _of_path)
OperatorOfExperiment = Annotated[Actor, Depends(require(Role.OPERATOR, EXPERIMENT))]

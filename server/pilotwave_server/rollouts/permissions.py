"""Who may steer a rollout: a limited token where its model and its group are the token's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends
from sqlalchemy.orm import Session

from pilotwave_server.deps import require
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.rollouts.transitions import RolloutUnknown, get_rollout, group_of
from pilotwave_server.scope import NOTHING, Resource, Touched


def _of_path(session: Session, names: Mapping[str, str]) -> Touched:
    try:
        row = get_rollout(session, names["rollout"])
    except RolloutUnknown:
        return NOTHING
    return Touched(row.model, [group_of(session, row).name])


ROLLOUT = Resource("rollout", _of_path)
OperatorOfRollout = Annotated[Actor, Depends(require(Role.OPERATOR, ROLLOUT))]

"""Who may change what a device runs: a limited token where the device is in one of its groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends
from sqlalchemy.orm import Session

from pilotwave_server.deps import require
from pilotwave_server.devices.service import find_device
from pilotwave_server.groups.service import groups_of
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.scope import Resource, Touched


def on_device(session: Session, device: str, model: str) -> Touched:
    """A model on a device; a device that is unknown is in no group."""
    row = find_device(session, device)
    groups = [] if row is None else groups_of(session, row)
    return Touched(model, [group.name for group in groups])


def _of_path(session: Session, names: Mapping[str, str]) -> Touched:
    return on_device(session, names["device"], names["model"])


DEVICE = Resource("device", _of_path)
OperatorOfDevice = Annotated[Actor, Depends(require(Role.OPERATOR, DEVICE))]

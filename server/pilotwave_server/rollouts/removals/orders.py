"""Order a model off a group's devices, or off one device.

A removal holds until the model is assigned there again: devices that come later, or that could not
remove models when it was ordered, follow it then. Whatever asks for a version of the model is
stronger: a removal takes the model only off devices that nothing tells to run it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import touch_fleet
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.service import get_device
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.errors import Conflict, NotFound
from pilotwave_server.groups.service import get_group, in_group
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.registry.tables import ModelRow
from pilotwave_server.rollouts.assignments.load_device import look
from pilotwave_server.rollouts.assignments.resolve import candidates
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot
from pilotwave_server.rollouts.end_removals import end_for_devices, end_for_group
from pilotwave_server.rollouts.operate.create import check_way_is_free
from pilotwave_server.rollouts.tables import BaselineRow, RemovalRow


class NotRemoved(NotFound):
    code: ClassVar[str] = "not_removed"


class StillAssigned(Conflict):
    """Something tells the device to run the model: take that back first."""

    code: ClassVar[str] = "still_assigned"


@dataclass(frozen=True)
class Affected:
    """Of the devices meant, how many have the model and how many of those can remove it."""

    have_it: int
    can_remove: int


def of_group(session: Session, *, group: str, model: str) -> Affected:
    """Count whom a removal concerns. GroupUnknown, ModelUnknown."""
    _need_model(session, model)
    return _count(session, model, in_group(session, get_group(session, group)))


def of_device(session: Session, *, device: str, model: str) -> Affected:
    """Count whom a removal concerns. DeviceUnknown, ModelUnknown."""
    _need_model(session, model)
    return _count(session, model, DeviceRow.id == get_device(session, device).id)


def remove_from_group(
    session: Session, *, group: str, model: str, actor: str, now: datetime
) -> Affected:
    """End the group's assignment of a model, and take it off its devices.

    GroupUnknown, ModelUnknown, RolloutInTheWay.
    """
    row = get_group(session, group, lock=True)
    _need_model(session, model)
    check_way_is_free(session, row, model)
    b = BaselineRow
    standing = select(b).where(b.group_id == row.id, b.model == model, b.ended_at.is_(None))
    for baseline in session.scalars(standing):
        baseline.ended_at = now
    found = of_group(session, group=group, model=model)
    _add(session, RemovalRow.group_id == row.id, row.id, None, model, actor, now)
    _note(session, f"group/{group}", "baseline.remove", model, found, actor, now)
    return found


def remove_from_device(
    session: Session, snapshot: FleetSnapshot, *, device: str, model: str, actor: str, now: datetime
) -> Affected:
    """Take a model off one device. DeviceUnknown, ModelUnknown, StillAssigned."""
    row = get_device(session, device, lock=True)
    _need_model(session, model)
    asks = next(candidates(look(session, snapshot, device).view, snapshot, model), None)
    if asks is not None:
        by = "its pin" if asks.reason == "pin" else f"group {asks.group}"
        raise StillAssigned(
            f"{by} tells {device} to run {model} {asks.version}: take that back first"
        )
    found = of_device(session, device=device, model=model)
    _add(session, RemovalRow.device_id == row.id, None, row.id, model, actor, now)
    _note(session, f"device/{device}", "device.remove", model, found, actor, now)
    return found


def keep_in_group(session: Session, *, group: str, model: str, actor: str, now: datetime) -> None:
    """Take a removal back; what is gone does not come back by that. NotRemoved."""
    row = get_group(session, group, lock=True)
    if not end_for_group(session, row.id, model):
        raise NotRemoved(f"{model} was not ordered off {group}")
    _note(session, f"group/{group}", "baseline.keep", model, None, actor, now)


def keep_on_device(session: Session, *, device: str, model: str, actor: str, now: datetime) -> None:
    """Take a removal back; what is gone does not come back by that. NotRemoved."""
    row = get_device(session, device, lock=True)
    if not end_for_devices(session, [row.id], model):
        raise NotRemoved(f"{model} was not ordered off {device}")
    _note(session, f"device/{device}", "device.keep", model, None, actor, now)


def _add(
    session: Session,
    whose: ColumnElement[bool],
    group_id: int | None,
    device_id: int | None,
    model: str,
    actor: str,
    now: datetime,
) -> None:
    touch_fleet(session)
    if session.scalar(select(RemovalRow.id).where(whose, RemovalRow.model == model)) is None:
        session.add(
            RemovalRow(
                model=model, group_id=group_id, device_id=device_id, set_by=actor, set_at=now
            )
        )
        session.flush()


def _count(session: Session, model: str, whose: ColumnElement[bool]) -> Affected:
    m = DeviceModelRow
    having = (
        select(DeviceRow.facts["removes_models"])
        .join(m, m.device_id == DeviceRow.id)
        .where(DeviceRow.state == "enrolled", whose, m.model == model)
        .where(m.current_version.is_not(None))
    )
    # SQLite gives a JSON truth as 1
    said = [bool(value) for value in session.scalars(having)]
    return Affected(len(said), sum(said))


def _need_model(session: Session, model: str) -> None:
    if session.scalar(select(func.count()).where(ModelRow.name == model)) == 0:
        raise ModelUnknown(model)


def _note(
    session: Session,
    what: str,
    verb: str,
    model: str,
    found: Affected | None,
    actor: str,
    now: datetime,
) -> None:
    after = {"model": model, **(vars(found) if found else {})}
    record(session, actor=actor, verb=verb, object=what, now=now, after=after)

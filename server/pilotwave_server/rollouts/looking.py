"""Bring one device together with the fleet's picture, as the database has both now."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.orm import Session

from pilotwave_protocol.states import Reason
from pilotwave_server.devices.errors import DeviceUnknown
from pilotwave_server.devices.loading import LoadedDevice, load_devices
from pilotwave_server.devices.tables import bucket_of
from pilotwave_server.rollouts.fleet import DeviceView, FleetSnapshot
from pilotwave_server.rollouts.leases import read_leases, read_took
from pilotwave_server.telemetry.tables import DeviceModelRow


class Looked(NamedTuple):
    """A device as stored, and as `resolve` sees it."""

    row: LoadedDevice
    view: DeviceView


def look(session: Session, snapshot: FleetSnapshot, name: str) -> Looked:
    """The device of that name, or DeviceUnknown."""
    row = load_devices(session, [name]).get(name)
    if row is None:
        raise DeviceUnknown(name)
    view = DeviceView(
        name=name,
        groups=snapshot.groups_of(row.labels, row.facts, row.member_of),
        facts=row.facts,
        pins=row.pins,
        attempts=row.attempts,
        bucket=bucket_of(name),
        leases=read_leases(session, [row.id]).get(row.id, frozenset()),
        conflict=row.conflict,
        took=read_took(session, [row.id]).get(row.id, frozenset()),
    )
    return Looked(row, view)


def forbidden_here(session: Session, device_id: int, model: str) -> str:
    """What a device says that still serves a version which it may not run; empty otherwise."""
    row = session.get(DeviceModelRow, (device_id, model))
    if row is None or row.reason not in (Reason.YANKED, Reason.BELOW_FLOOR):
        return ""
    return row.detail or row.reason

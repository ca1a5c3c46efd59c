"""Bring one device together with the fleet's picture, as the database has both now."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol.states import Reason
from pilotwave_server.devices.errors import DeviceUnknown
from pilotwave_server.devices.loading import LoadedDevice, load_devices
from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.silence import Silence
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.devices.views import refusal_of
from pilotwave_server.rollouts.assignments.explain import Turn
from pilotwave_server.rollouts.assignments.snapshot import DeviceView, FleetSnapshot
from pilotwave_server.rollouts.leases import read_leases, read_shadows, read_took
from pilotwave_server.rollouts.tables import RolloutDeviceRow, RolloutRow


class Looked(NamedTuple):
    """A device as stored, and as `resolve` sees it."""

    row: LoadedDevice
    view: DeviceView


def look(session: Session, snapshot: FleetSnapshot, name: str) -> Looked:
    """The device of that name, or DeviceUnknown."""
    found = look_at(session, snapshot, [name]).get(name)
    if found is None:
        raise DeviceUnknown(name)
    return found


def look_at(session: Session, snapshot: FleetSnapshot, names: Collection[str]) -> dict[str, Looked]:
    """The devices of these names that there are, by name. Many cost as many statements as one."""
    rows = load_devices(session, names)
    ids = [row.id for row in rows.values()]
    leases, took = read_leases(session, ids), read_took(session, ids)
    shadows = read_shadows(session, ids)
    return {
        name: Looked(
            row,
            DeviceView(
                name=name,
                groups=snapshot.groups_of(row.labels, row.facts, row.member_of),
                facts=row.facts,
                pins=row.pins,
                attempts=row.attempts,
                bucket=row.bucket,
                leases=leases.get(row.id, frozenset()),
                conflict=row.conflict,
                took=took.get(row.id, frozenset()),
                shadows=shadows.get(row.id, frozenset()),
            ),
        )
        for name, row in rows.items()
    }


def read_turns(session: Session, device_id: int, model: str) -> dict[int, Turn]:
    """What came of the device's turns in the rollouts of a model, by the rollout's row number."""
    d, r = RolloutDeviceRow, RolloutRow
    query = (
        select(d.rollout_id, d.outcome, d.reason, d.detail)
        .join(r, r.id == d.rollout_id)
        .where(d.device_id == device_id, r.model == model)
    )
    return {rollout: Turn(*told) for rollout, *told in session.execute(query)}


def unheard(session: Session, device_id: int, silence: Silence) -> str:
    """Say that the device is silent, and so knows nothing of what it should run; or nothing."""
    device = session.get_one(DeviceRow, device_id)
    if device.state != "enrolled" or not silence.is_silent(device):
        return ""
    if device.last_seen is None:
        return f"{device.name} has not checked in yet"
    since = f"{device.last_seen:%Y-%m-%dT%H:%M:%SZ}"
    return f"{device.name} has been silent since {since}; it takes new orders when it is back"


def device_says(session: Session, device_id: int, model: str) -> str:
    """What a device says against running what it should: that it refuses its orders, that it still
    serves what it may not run, or that the version failed there. With what a person has to do;
    empty if it says nothing of the kind."""
    device = session.get_one(DeviceRow, device_id)
    if device.refusal is not None:
        no = refusal_of(device, device.refusal)
        return f"it refuses its orders: {no.detail or no.reason}; {no.action}"
    row = session.get(DeviceModelRow, (device_id, model))
    if row is None:
        return ""
    if row.reason in (Reason.YANKED, Reason.BELOW_FLOOR):
        return row.detail or row.reason
    if row.state not in ("failed", "rolled_back") or row.reason == Reason.OPERATOR_ROLLBACK:
        return ""
    stays = f"it stays on {row.current_version}" if row.current_version else "it runs none"
    failed = f"{row.candidate_version} failed here" if row.candidate_version else "it failed"
    told = f" ({row.detail or row.reason})" if row.reason else ""
    name = session.get_one(DeviceRow, device_id).name
    return f"{failed}{told}; {stays} until `pilotwave devices retry {name} --model {model}`"

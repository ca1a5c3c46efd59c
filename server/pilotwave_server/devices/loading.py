"""Read what decides a device's set: itself, its pins, its static groups. Many devices at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.devices.tables import DeviceRow, GroupMemberRow, PinRow


@dataclass(frozen=True)
class LoadedDevice:
    """One device as stored. `member_of` are the ids of the static groups that list it; `conflict`
    says whether two machines use its key."""

    id: int
    name: str
    state: str
    generation: int
    revision: int
    public_key: str
    labels: Mapping[str, Any]
    facts: Mapping[str, Any]
    pins: Mapping[str, str]
    attempts: Mapping[str, int]
    member_of: frozenset[int]
    bucket: int = 0
    refusing: bool = False
    conflict: bool = False


def load_devices(session: Session, names: Collection[str]) -> dict[str, LoadedDevice]:
    """Return the devices of these names that there are, by name."""
    d = DeviceRow
    columns = (d.id, d.name, d.state, d.generation, d.revision, d.public_key)
    rows = session.execute(
        select(
            *columns, d.labels, d.facts, d.attempts, d.bucket, d.refusal, d.conflict_since
        ).where(d.name.in_(names))
    ).all()
    ids = [row.id for row in rows]
    pins = _pins(session, ids)
    members = _members(session, ids)
    return {
        row.name: LoadedDevice(
            id=row.id,
            name=row.name,
            state=row.state,
            generation=row.generation,
            revision=row.revision,
            public_key=row.public_key,
            labels=row.labels,
            facts=row.facts,
            pins=pins.get(row.id, {}),
            attempts=row.attempts,
            member_of=frozenset(members.get(row.id, ())),
            bucket=row.bucket,
            refusing=bool(row.refusal),
            conflict=row.conflict_since is not None,
        )
        for row in rows
    }


def _pins(session: Session, ids: list[int]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = defaultdict(dict)
    p = PinRow
    for device, model, version in session.execute(
        select(p.device_id, p.model, p.version).where(p.device_id.in_(ids))
    ):
        found[device][model] = version
    return found


def _members(session: Session, ids: list[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    m = GroupMemberRow
    for device, group in session.execute(
        select(m.device_id, m.group_id).where(m.device_id.in_(ids))
    ):
        found[device].append(group)
    return found

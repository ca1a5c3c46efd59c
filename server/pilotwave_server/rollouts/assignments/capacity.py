"""How many models one device takes, and what happens where it is asked to run more.

A directive has room for so many entries, and an agent of before 2026-11-29 for 64. Who assigns,
pins or rolls out is refused where a device would be asked to run more than it takes. Where a label,
a group or a fact brings that about, the models beyond are held with a reason: those that are pinned
come first, then by name. A device keeps what it has of a model that is held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_protocol import strictjson
from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.messages.directive import (
    MAX_DIRECTIVE_BYTES,
    MAX_ENTRIES,
    SMALL_ENTRIES,
    Entry,
)
from pilotwave_server.devices.loading import LoadedDevice, load_devices
from pilotwave_server.devices.tables import DeviceRow, PinRow
from pilotwave_server.errors import Conflict
from pilotwave_server.groups.service import in_group
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.rollouts.assignments.snapshot import FleetSnapshot

FACT = "max_models"
_ROOM = MAX_DIRECTIVE_BYTES - (4 << 10)  # for all that is not the set
_AT_ONCE = 500


class TooManyModels(Conflict):
    """A device would be asked to run more models than its agent takes."""

    code: ClassVar[str] = "too_many_models"


def most_models(facts: Mapping[str, Scalar]) -> int:
    """How many models the agent of a device with these facts takes in one directive."""
    said = facts.get(FACT)
    if isinstance(said, bool) or not isinstance(said, int):
        return SMALL_ENTRIES
    return min(max(said, SMALL_ENTRIES), MAX_ENTRIES)


def left_out(entries: Collection[Entry], facts: Mapping[str, Scalar]) -> dict[str, str]:
    """The models that a device's directive has no room for, each with a sentence."""
    most = most_models(facts)
    if len(entries) <= SMALL_ENTRIES // 2:
        return {}
    sentences = {}
    size = count = 0
    for entry in sorted(entries, key=lambda e: (e.reason != "pin", e.model)):
        length = len(strictjson.dumps(vars(entry))) + 1
        if count < most and size + length <= _ROOM:
            count, size = count + 1, size + length
            continue
        what = f"{most} models" if count >= most else f"a directive of {MAX_DIRECTIVE_BYTES} bytes"
        sentences[entry.model] = (
            f"this device is asked to run {len(entries)} models and its agent takes {what}: take"
            " models from it, or update its agent"
        )
    return sentences


def check_group(session: Session, snapshot: FleetSnapshot, group: GroupRow, model: str) -> None:
    """TooManyModels if a device of the group would be asked to run more models than it takes."""
    if fits_all(session, snapshot, model):
        return
    query = select(DeviceRow.name).where(DeviceRow.state == "enrolled", in_group(session, group))
    names = list(session.scalars(query.order_by(DeviceRow.name)))
    for start in range(0, len(names), _AT_ONCE):
        found = load_devices(session, names[start : start + _AT_ONCE])
        _check(snapshot, found.values(), model)


def check_device(snapshot: FleetSnapshot, device: LoadedDevice, model: str) -> None:
    """TooManyModels if the device would be asked to run more models than it takes."""
    _check(snapshot, [device], model)


def fits_all(session: Session, snapshot: FleetSnapshot, model: str) -> bool:
    """Whether all models that anything asks for fit on any device: then no device is looked at."""
    asked = {*snapshot.baselines, *snapshot.rollouts, model}
    return len(asked | _pinned(session)) <= SMALL_ENTRIES


def _pinned(session: Session) -> set[str]:
    return set(session.scalars(select(PinRow.model).distinct()))


def _check(snapshot: FleetSnapshot, devices: Iterable[LoadedDevice], model: str) -> None:
    for device in devices:
        groups = snapshot.groups_of(device.labels, device.facts, device.member_of)
        before = {*device.pins, *_asked_of(snapshot, groups)}
        asked, most = before | {model}, most_models(device.facts)
        # who runs the model already is asked for no more than before
        if model not in before and len(asked) > most:
            raise TooManyModels(
                f"{device.name} would be asked to run {len(asked)} models; its agent takes {most}."
                " Unassign models from it, or update its agent",
                device=device.name,
                models=len(asked),
                most=most,
            )


def _asked_of(snapshot: FleetSnapshot, groups: frozenset[int]) -> Iterator[str]:
    for model, baselines in snapshot.baselines.items():
        if any(b.group_id in groups for b in baselines):
            yield model
    for model, rollouts in snapshot.rollouts.items():
        if any(r.group_id in groups for r in rollouts):
            yield model

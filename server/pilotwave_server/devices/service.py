"""Devices as operators see and steer them: list, look, label, accept, reject, revoke, retire.

Pins are `rollouts/pins.py`'s, because which versions may be offered is decided there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from pilotwave_protocol.reference import DRIFTED
from pilotwave_server.audit.service import record
from pilotwave_server.db import lock_fleet, next_revision
from pilotwave_server.devices.errors import DeviceUnknown, WrongDeviceState
from pilotwave_server.devices.report_tables import DeviceEventRow, DeviceHistoryRow, DeviceModelRow
from pilotwave_server.devices.tables import DeviceRow, PinRow
from pilotwave_server.paging import PageRequest, paginate, paginate_with_empty

OUT = ("pending", "revoked", "decommissioned")
"""States of devices that are offered nothing."""
FAILED = ("failed", "rolled_back")
"""States of a model on a device whose last version failed or went back."""
Standing = Literal["online", "silent", "failing", "refusing", "conflict", "drifting"]
DRIFTS_FOR = timedelta(days=2)
"""So long after its last word of it a device counts as drifting; it says so once a day."""


def find_device(session: Session, name: str, *, lock: bool = False) -> DeviceRow | None:
    """The device of that name, or None; held until the transaction ends if `lock`."""
    query = select(DeviceRow).where(DeviceRow.name == name)
    if lock:
        # the fleet before its devices, always, so that no two writers wait for each other in a ring
        lock_fleet(session)
        query = query.with_for_update()
    return session.scalars(query).one_or_none()


def get_device(session: Session, name: str, *, lock: bool = False) -> DeviceRow:
    """As `find_device`, or DeviceUnknown."""
    row = find_device(session, name, lock=lock)
    if row is None:
        raise DeviceUnknown(name)
    return row


def hold_devices(session: Session, names: Collection[str]) -> dict[str, DeviceRow]:
    """The devices of these names that there are, by name; held until the transaction ends."""
    lock_fleet(session)
    query = select(DeviceRow).where(DeviceRow.name.in_(names)).order_by(DeviceRow.id)
    return {row.name: row for row in session.scalars(query.with_for_update())}


SORTS: Mapping[str, Sequence[InstrumentedAttribute[Any]]] = {
    "name": (DeviceRow.name,),
    "state": (DeviceRow.state, DeviceRow.name),
    "agent": (DeviceRow.agent, DeviceRow.name),
    "last_seen": (DeviceRow.last_seen, DeviceRow.id),
}
"""What devices may be sorted by; each has an index."""


def list_devices(
    session: Session,
    *,
    page: PageRequest,
    rules: Sequence[ColumnElement[bool]] = (),
    sort: str = "name",
) -> tuple[list[DeviceRow], str | None]:
    """Devices for which all rules hold (`finding.matching`), sorted; `-` before the sort turns it
    round."""
    query = select(DeviceRow).where(*rules)
    by = sort.removeprefix("-")
    turn = paginate_with_empty if by == "last_seen" else paginate
    return turn(session, query, keys=SORTS[by], page=page, descending=sort.startswith("-"))


def count_devices(session: Session, rules: Sequence[ColumnElement[bool]]) -> int:
    """How many devices there are for which all rules hold."""
    return session.scalar(select(func.count()).select_from(DeviceRow).where(*rules)) or 0


def is_refusing() -> ColumnElement[bool]:
    """The WHERE expression over devices that holds where one refuses its orders."""
    return and_(DeviceRow.refusal.is_not(None), DeviceRow.state.not_in(OUT))


def is_failing() -> ColumnElement[bool]:
    """The WHERE expression over devices that holds where one refuses its orders, or where a version
    of a model failed on it or went back; not for one that is out of service."""
    d, m = DeviceRow, DeviceModelRow
    failed = d.id.in_(select(m.device_id).where(m.state.in_(FAILED)))
    return and_(d.state.not_in(OUT), or_(d.refusal.is_not(None), failed))


def count_failing(session: Session) -> int:
    """How many devices fail (`is_failing`). It reads those alone, not the fleet."""
    d, m = DeviceRow, DeviceModelRow
    failed = select(m.device_id).where(m.state.in_(FAILED))
    refusing = select(d.id).where(d.refused_since.is_not(None), d.refusal.is_not(None))
    return count_devices(session, [d.state.not_in(OUT), d.id.in_(failed.union(refusing))])


def count_refusing(session: Session) -> int:
    """How many devices refuse their orders. It reads those alone, not the fleet."""
    return count_devices(session, [DeviceRow.refused_since.is_not(None), is_refusing()])


def drifting(now: datetime) -> Select[tuple[datetime, int]]:
    """When devices last said that inputs of a version that they still run have drifted, and their
    ids; not of those that are out of service."""
    d, h, m = DeviceRow, DeviceHistoryRow, DeviceModelRow
    runs = (m.device_id == h.device_id, m.model == h.model, m.current_version == h.version)
    return (
        select(h.at, h.device_id)
        .join(m, and_(*runs))
        .join(d, d.id == h.device_id)
        .where(h.became == DRIFTED, h.at > now - DRIFTS_FOR, d.state.not_in(OUT))
    )


def is_drifting(now: datetime) -> ColumnElement[bool]:
    """The WHERE expression over devices of which inputs have drifted lately."""
    return DeviceRow.id.in_(drifting(now).with_only_columns(DeviceHistoryRow.device_id))


def models_of(session: Session, devices: Sequence[DeviceRow]) -> Mapping[int, list[DeviceModelRow]]:
    """What each device reported of its models, by device id."""
    m = DeviceModelRow
    rows = session.scalars(
        select(m).where(m.device_id.in_([d.id for d in devices])).order_by(m.model)
    )
    found: dict[int, list[DeviceModelRow]] = defaultdict(list)
    for row in rows:
        found[row.device_id].append(row)
    return found


def pins_of(session: Session, device: DeviceRow) -> list[PinRow]:
    """Operators' pins on a device, by model."""
    query = select(PinRow).where(PinRow.device_id == device.id).order_by(PinRow.model)
    return list(session.scalars(query))


def list_events(
    session: Session, *, name: str, page: PageRequest
) -> tuple[list[DeviceEventRow], str | None]:
    """What a device said happened, newest first."""
    e = DeviceEventRow
    query = select(e).where(e.device_id == get_device(session, name).id)
    return paginate(session, query, keys=[e.id], page=page, descending=True)


def list_history(
    session: Session, *, name: str, page: PageRequest, model: str | None = None
) -> tuple[list[DeviceHistoryRow], str | None]:
    """What versions became on a device, newest first."""
    h = DeviceHistoryRow
    query = select(h).where(h.device_id == get_device(session, name).id)
    if model is not None:
        query = query.where(h.model == model)
    return paginate(session, query, keys=[h.id], page=page, descending=True)


def count_by_state(session: Session) -> dict[str, int]:
    """How many devices there are in each state."""
    counts = select(DeviceRow.state, func.count()).group_by(DeviceRow.state)
    return dict(session.execute(counts).tuples().all())


def set_labels(
    session: Session, *, name: str, labels: Mapping[str, str], actor: str, now: datetime
) -> DeviceRow:
    """Give a device exactly these labels."""
    row = get_device(session, name, lock=True)
    relabel(session, row, labels, actor=actor, now=now)
    return row


def relabel(
    session: Session,
    row: DeviceRow,
    labels: Mapping[str, str],
    *,
    actor: str,
    now: datetime,
    revision: int | None = None,
) -> None:
    """As `set_labels`, of a device that is held; `revision` is the transaction's, if
    it has one."""
    if row.labels == labels:
        return
    before = row.labels
    row.labels = dict(labels)
    row.revision = revision or next_revision(session)
    _note(session, row, "device.label", actor, now, {"labels": before}, {"labels": row.labels})


def accept(session: Session, *, name: str, actor: str, now: datetime) -> DeviceRow:
    """Let in a device that waits; one that is in stays so. WrongDeviceState."""
    row = get_device(session, name, lock=True)
    let_in(session, row, actor=actor, now=now)
    return row


def let_in(
    session: Session, row: DeviceRow, *, actor: str, now: datetime, revision: int | None = None
) -> None:
    """As `accept`, of a device that is held; `revision` as for `relabel`."""
    if row.state == "enrolled":
        return
    if row.state != "pending":
        no = f"{row.name} is {row.state}: only a device that waits can be accepted"
        raise WrongDeviceState(no)
    row.enrolled_at = now
    _change_state(session, row, "enrolled", "device.accept", actor, now, revision)


def reject(session: Session, *, name: str, actor: str, now: datetime) -> None:
    """Turn down a device that waits. It is forgotten, and may ask again. WrongDeviceState."""
    row = get_device(session, name, lock=True)
    if row.state != "pending":
        raise WrongDeviceState(f"{name} is {row.state}: only a device that waits can be rejected")
    _note(session, row, "device.reject", actor, now, {"public_key": row.public_key}, None)
    session.flush()
    session.execute(delete(DeviceRow).where(DeviceRow.id == row.id))


def revoke(session: Session, *, name: str, actor: str, now: datetime) -> DeviceRow:
    """End a device's key and tokens for good. WrongDeviceState for one that only waits."""
    row = get_device(session, name, lock=True)
    if row.state == "pending":
        raise WrongDeviceState(f"{name} is not enrolled yet: reject it instead")
    if row.state != "revoked":
        _change_state(session, row, "revoked", "device.revoke", actor, now)
    return row


def decommission(session: Session, *, name: str, actor: str, now: datetime) -> DeviceRow:
    """Take a device out of service; its history stays. WrongDeviceState."""
    row = get_device(session, name, lock=True)
    retire(session, row, actor=actor, now=now)
    return row


def retire(
    session: Session, row: DeviceRow, *, actor: str, now: datetime, revision: int | None = None
) -> None:
    """As `decommission`, of a device that is held; `revision` as for `relabel`."""
    if row.state == "decommissioned":
        return
    if row.state != "enrolled":
        no = f"{row.name} is {row.state}: only an enrolled device can be decommissioned"
        raise WrongDeviceState(no)
    _change_state(session, row, "decommissioned", "device.decommission", actor, now, revision)


def _change_state(
    session: Session,
    row: DeviceRow,
    state: str,
    verb: str,
    actor: str,
    now: datetime,
    revision: int | None = None,
) -> None:
    before = row.state
    row.state = state
    if state != "enrolled":
        row.generation += 1
        row.silent_since = None
    row.revision = revision or next_revision(session)
    _note(session, row, verb, actor, now, {"state": before}, {"state": state})


def _note(
    session: Session,
    row: DeviceRow,
    verb: str,
    actor: str,
    now: datetime,
    before: Mapping[str, object] | None,
    after: Mapping[str, object] | None,
) -> None:
    record(
        session,
        actor=actor,
        verb=verb,
        object=f"device/{row.name}",
        now=now,
        before=before,
        after=after,
    )

"""Make, change and list groups, and say who is in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import ClassVar

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import lock_fleet, next_revision, touch_fleet
from pilotwave_server.devices.service import get_device
from pilotwave_server.devices.tables import DeviceRow, GroupMemberRow
from pilotwave_server.errors import Conflict, NotFound
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.paging import PageRequest, paginate
from pilotwave_server.selector import compile_predicate, compile_sql, parse


class GroupUnknown(NotFound):
    code: ClassVar[str] = "group_unknown"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no group {name}")


class GroupNameTaken(Conflict):
    code: ClassVar[str] = "group_name_taken"


class WrongKind(Conflict):
    """A static group has members but no selector; a selector group has no members of its own."""

    code: ClassVar[str] = "wrong_kind_of_group"


class GroupInUse(Conflict):
    """Rollouts to the group are kept as a record."""

    code: ClassVar[str] = "group_in_use"


def get_group(session: Session, name: str, *, lock: bool = False) -> GroupRow:
    """The group of that name, or GroupUnknown. `lock`: no other change of groups meanwhile."""
    if lock:
        lock_fleet(session)
    row = session.scalars(select(GroupRow).where(GroupRow.name == name)).one_or_none()
    if row is None:
        raise GroupUnknown(name)
    return row


def list_groups(session: Session, *, page: PageRequest) -> tuple[list[GroupRow], str | None]:
    """All groups, by name."""
    return paginate(session, select(GroupRow), keys=[GroupRow.name], page=page)


def create_group(
    session: Session,
    *,
    name: str,
    selector: str | None,
    description: str,
    actor: str,
    now: datetime,
) -> GroupRow:
    """A new group: by selector, or static where that is None. BadSelector, GroupNameTaken."""
    if selector is not None:
        parse(selector)
    touch_fleet(session)
    row = GroupRow(
        name=name,
        kind="static" if selector is None else "selector",
        selector=selector,
        description=description,
        created_at=now,
        updated_at=now,
    )
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise GroupNameTaken(f"there is a group {name} already") from error
    _note(session, row, "group.create", actor, now, after=_told(row))
    return row


def change_group(
    session: Session,
    *,
    name: str,
    selector: str | None,
    description: str,
    actor: str,
    now: datetime,
) -> GroupRow:
    """Replace a group's selector and description; its kind stays. BadSelector, WrongKind."""
    row = get_group(session, name, lock=True)
    if selector is not None:
        parse(selector)
    if (selector is None) != (row.kind == "static"):
        raise WrongKind(f"{name} is a {row.kind} group, and stays one: make another group instead")
    before = _told(row)
    if (row.selector, row.description) == (selector, description):
        return row
    row.selector, row.description, row.updated_at = selector, description, now
    touch_fleet(session)
    _note(session, row, "group.change", actor, now, before=before, after=_told(row))
    return row


def delete_group(session: Session, *, name: str, actor: str, now: datetime) -> None:
    """Delete a group with its baselines. Devices keep what they run unless another group says.

    GroupUnknown, GroupInUse.
    """
    row = get_group(session, name, lock=True)
    members = select(GroupMemberRow.device_id).where(GroupMemberRow.group_id == row.id)
    # its number may be given to another group, so no memory of its members may stay
    session.execute(
        update(DeviceRow).where(DeviceRow.id.in_(members)).values(revision=next_revision(session)),
        execution_options={"synchronize_session": False},
    )
    touch_fleet(session)
    _note(session, row, "group.delete", actor, now, before=_told(row))
    session.flush()
    try:
        session.execute(delete(GroupRow).where(GroupRow.id == row.id))
    except IntegrityError as error:
        raise GroupInUse(f"{name} cannot be deleted: its rollouts are kept as a record") from error


def add_member(session: Session, *, name: str, device: str, actor: str, now: datetime) -> None:
    """Put a device on a static group's list; one that is on it stays. WrongKind."""
    row, member = _static_member(session, name, device)
    if session.get(GroupMemberRow, (row.id, member.id)) is None:
        session.add(GroupMemberRow(group_id=row.id, device_id=member.id, added_at=now))
        member.revision = next_revision(session)
        _note(session, row, "group.add", actor, now, after={"device": device})


def remove_member(session: Session, *, name: str, device: str, actor: str, now: datetime) -> None:
    """Take a device off a static group's list; one that is not on it stays off. WrongKind."""
    row, member = _static_member(session, name, device)
    listed = session.get(GroupMemberRow, (row.id, member.id))
    if listed is not None:
        session.delete(listed)
        member.revision = next_revision(session)
        _note(session, row, "group.remove", actor, now, before={"device": device})


def _static_member(session: Session, name: str, device: str) -> tuple[GroupRow, DeviceRow]:
    row = get_group(session, name, lock=True)
    if row.kind != "static":
        raise WrongKind(f"{name} is a selector group: its selector says who is in it")
    return row, get_device(session, device, lock=True)


def in_group(session: Session, row: GroupRow) -> ColumnElement[bool]:
    """The WHERE expression over devices that holds for the group's."""
    if row.selector is None:
        member = GroupMemberRow
        return exists().where(member.group_id == row.id, member.device_id == DeviceRow.id)
    dialect = session.get_bind().dialect.name
    return compile_sql(parse(row.selector), DeviceRow.labels, DeviceRow.facts, dialect=dialect)


def devices_in(
    session: Session, *, name: str, page: PageRequest
) -> tuple[list[DeviceRow], str | None]:
    """The group's devices in every state, by name."""
    query = select(DeviceRow).where(in_group(session, get_group(session, name)))
    return paginate(session, query, keys=[DeviceRow.name], page=page)


def groups_of(session: Session, device: DeviceRow) -> list[GroupRow]:
    """The groups that a device is in, by name."""
    m = GroupMemberRow
    listed = set(session.scalars(select(m.group_id).where(m.device_id == device.id)))
    groups: Iterable[GroupRow] = session.scalars(select(GroupRow).order_by(GroupRow.name))
    return [g for g in groups if g.id in listed or _selects(g, device)]


def groups_by_device(session: Session, devices: Collection[str]) -> dict[str, list[str]]:
    """The names of the groups that each device is in, by its name; of one that there is not, none.
    Three queries, however many devices."""
    d, m = DeviceRow, GroupMemberRow
    query = select(d.id, d.name, d.labels, d.facts).where(d.name.in_(devices))
    rows = session.execute(query).all()
    listed = select(m.device_id, m.group_id).where(m.device_id.in_([row.id for row in rows]))
    members = set(session.execute(listed).tuples())
    found: dict[str, list[str]] = {name: [] for name in devices}
    for group in session.scalars(select(GroupRow).order_by(GroupRow.name)):
        selects = None if group.selector is None else compile_predicate(parse(group.selector))
        for row in rows:
            if (row.id, group.id) in members or (selects and selects(row.labels, row.facts)):
                found[row.name].append(group.name)
    return found


def count_devices(session: Session, row: GroupRow) -> int:
    """How many enrolled devices are in the group."""
    enrolled = select(func.count()).where(DeviceRow.state == "enrolled", in_group(session, row))
    return session.scalar(enrolled) or 0


def _selects(row: GroupRow, device: DeviceRow) -> bool:
    if row.selector is None:
        return False
    return compile_predicate(parse(row.selector))(device.labels, device.facts)


def _told(row: GroupRow) -> dict[str, object]:
    return {"kind": row.kind, "selector": row.selector, "description": row.description}


def _note(
    session: Session,
    row: GroupRow,
    verb: str,
    actor: str,
    now: datetime,
    *,
    before: dict[str, object] | None = None,
    after: dict[str, object] | None = None,
) -> None:
    record(
        session,
        actor=actor,
        verb=verb,
        object=f"group/{row.name}",
        now=now,
        before=before,
        after=after,
    )

"""Groups over HTTP. What they run is `rollouts/routes.py`'s."""

from __future__ import annotations

from pilotwave_server.deps import Ctx, Now, Operator, ReadSession, Viewer, WriteSession
from pilotwave_server.devices.errors import DeviceUnknown
from pilotwave_server.devices.presence import LastPolls
from pilotwave_server.devices.service import models_of
from pilotwave_server.devices.silence import silence
from pilotwave_server.devices.views import DeviceSummary, summary
from pilotwave_server.fields import DeviceName, GroupName
from pilotwave_server.groups import service
from pilotwave_server.groups.service import GroupInUse, GroupNameTaken, GroupUnknown, WrongKind
from pilotwave_server.groups.tables import GroupRow
from pilotwave_server.groups.views import GroupChange, GroupDetail, GroupRequest, GroupView
from pilotwave_server.paging import BadCursor, CountedPage, Page, Paging, count_rows
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router
from pilotwave_server.selector import BadSelector

router = api_router(tag="groups", prefix="/groups")


@router.get("", summary="List groups", responses=responses(BadCursor))
def list_groups(viewer: Viewer, session: ReadSession, page: Paging) -> CountedPage[GroupView]:
    """By name."""
    rows, cursor = service.list_groups(session, page=page)
    return CountedPage(
        items=[GroupView.model_validate(row) for row in rows],
        next_cursor=cursor,
        total=count_rows(session, GroupRow),
    )


@router.post(
    "",
    status_code=201,
    summary="Create a group",
    responses=responses(GroupNameTaken, BadSelector),
)
def create_group(
    operator: Operator, session: WriteSession, now: Now, body: GroupRequest
) -> GroupView:
    """A selector goes by labels (`site=berlin`) and facts (`fact.arch=aarch64`).

    `key`, `!key`: set or not; `=`, `!=`, `in (…)`, `notin (…)`; `>`, `>=`, `<`, `<=` for numbers;
    a comma means AND; `*` takes every device.
    """
    row = service.create_group(
        session,
        name=body.name,
        selector=body.selector,
        description=body.description,
        actor=str(operator),
        now=now,
    )
    return GroupView.model_validate(row)


@router.get("/{group}", summary="One group", responses=responses(GroupUnknown))
def get_group(group: GroupName, viewer: Viewer, session: ReadSession) -> GroupDetail:
    row = service.get_group(session, group)
    view = GroupView.model_validate(row)
    return GroupDetail(**view.model_dump(), devices=service.count_devices(session, row))


@router.put(
    "/{group}",
    summary="Change a group's selector or description",
    responses=responses(GroupUnknown, WrongKind, BadSelector),
)
def change_group(
    group: GroupName, operator: Operator, session: WriteSession, now: Now, body: GroupChange
) -> GroupView:
    """Both are replaced. A static group cannot become a selector group, nor the reverse."""
    row = service.change_group(
        session,
        name=group,
        selector=body.selector,
        description=body.description,
        actor=str(operator),
        now=now,
    )
    return GroupView.model_validate(row)


@router.delete(
    "/{group}",
    status_code=204,
    summary="Delete a group",
    responses=responses(GroupUnknown, GroupInUse),
)
def delete_group(group: GroupName, operator: Operator, session: WriteSession, now: Now) -> None:
    """Its assignments are deleted too; its devices keep what they run unless another group assigns
    more."""
    service.delete_group(session, name=group, actor=str(operator), now=now)


@router.put(
    "/{group}/members/{device}",
    status_code=204,
    summary="Add a device to a list group",
    responses=responses(GroupUnknown, DeviceUnknown, WrongKind),
)
def add_member(
    group: GroupName, device: DeviceName, operator: Operator, session: WriteSession, now: Now
) -> None:
    service.add_member(session, name=group, device=device, actor=str(operator), now=now)


@router.delete(
    "/{group}/members/{device}",
    status_code=204,
    summary="Remove a device from a list group",
    responses=responses(GroupUnknown, DeviceUnknown, WrongKind),
)
def remove_member(
    group: GroupName, device: DeviceName, operator: Operator, session: WriteSession, now: Now
) -> None:
    service.remove_member(session, name=group, device=device, actor=str(operator), now=now)


@router.get(
    "/{group}/devices",
    summary="The devices in a group",
    responses=responses(GroupUnknown, BadCursor),
)
def list_members(
    group: GroupName, viewer: Viewer, session: ReadSession, context: Ctx, page: Paging
) -> Page[DeviceSummary]:
    """In every state, by name."""
    rows, cursor = service.devices_in(session, name=group, page=page)
    models = models_of(session, rows)
    quiet = silence(context.settings, context.clock())
    polled = context.get(LastPolls).of
    items = [summary(row, models[row.id], polled(row.name), quiet) for row in rows]
    return Page(items=items, next_cursor=cursor)

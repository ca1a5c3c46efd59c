"""Devices and enrolment codes over HTTP. Pins and `why` are `rollouts/routes.py`'s."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Response
from fastapi.responses import StreamingResponse

from pilotwave_server.deps import NO_STORE, Ctx, Now, Operator, ReadSession, Viewer, WriteSession
from pilotwave_server.devices import codes, conflicts, service, shown
from pilotwave_server.devices.errors import CodeUnknown, CodeUsed, DeviceUnknown, WrongDeviceState
from pilotwave_server.devices.presence import LastPolls, PushChannels
from pilotwave_server.devices.silence import silence
from pilotwave_server.devices.tables import DeviceRow, EnrolmentCodeRow
from pilotwave_server.devices.views import (
    CodesRequest,
    CodeView,
    DeviceCount,
    DeviceDetail,
    DeviceEventView,
    DeviceSort,
    DeviceSummary,
    LabelsRequest,
    NewCodes,
    NewCodeView,
    detail,
    summary,
)
from pilotwave_server.fields import DeviceName
from pilotwave_server.groups.service import GroupUnknown, groups_of
from pilotwave_server.inventory.export import rows_of
from pilotwave_server.inventory.filters import Filter
from pilotwave_server.inventory.finding import matching
from pilotwave_server.paging import BadCursor, CountedPage, Page, Paging, count_rows
from pilotwave_server.problems import responses
from pilotwave_server.registry.publish import ModelUnknown
from pilotwave_server.routing import api_router
from pilotwave_server.selector import BadSelector

router = api_router(tag="devices")
CodeId = Annotated[int, Path(ge=1, le=2**53, description="The code's id, from the list.")]


def _summaries(session: ReadSession, context: Ctx, rows: list[DeviceRow]) -> list[DeviceSummary]:
    models = service.models_of(session, rows)
    quiet = silence(context.settings, context.clock())
    polled = context.get(LastPolls).of
    return [summary(row, models[row.id], polled(row.name), quiet) for row in rows]


@router.get(
    "/devices",
    summary="List devices",
    responses=responses(BadCursor, BadSelector, GroupUnknown, ModelUnknown),
)
def list_devices(
    viewer: Viewer,
    session: ReadSession,
    context: Ctx,
    page: Paging,
    now: Now,
    wanted: Filter,
    sort: Annotated[
        DeviceSort, Query(description="By what; `-` before it turns it round.")
    ] = "name",
) -> Page[DeviceSummary]:
    """By name unless `sort` says otherwise. A cursor goes with the sort that it came from. How many
    there are in all says `/api/v1/device-count`, by the same filter."""
    rows, cursor = service.list_devices(
        session,
        page=page,
        rules=matching(session, wanted, silence(context.settings, now)),
        sort=sort,
    )
    return Page(items=_summaries(session, context, rows), next_cursor=cursor)


@router.get(
    "/device-count",
    operation_id="count_devices",
    summary="Count the devices that match a filter",
    responses=responses(BadSelector, GroupUnknown, ModelUnknown),
)
def count(
    viewer: Viewer, session: ReadSession, context: Ctx, now: Now, wanted: Filter
) -> DeviceCount:
    """By the same parameters as the list. An act on a filter wants `digest` back, so that it
    reaches these devices and no other."""
    rules = matching(session, wanted, silence(context.settings, now))
    return DeviceCount(**vars(shown.look(session, rules)))


@router.get(
    "/devices.csv",
    operation_id="export_devices",
    summary="Export devices as CSV",
    response_class=Response,
    responses={
        200: {"content": {"text/csv": {}}},
        **responses(BadSelector, GroupUnknown, ModelUnknown),
    },
)
def export(
    viewer: Viewer, session: ReadSession, context: Ctx, now: Now, wanted: Filter
) -> Response:
    """By name, filtered as the list. It is sent as it is read, however many there are."""
    rules = matching(session, wanted, silence(context.settings, now))
    name = "attachment; filename=devices.csv"
    return StreamingResponse(
        rows_of(context, rules), media_type="text/csv", headers={"Content-Disposition": name}
    )


@router.get("/devices/{device}", summary="One device", responses=responses(DeviceUnknown))
def get_device(
    device: DeviceName, viewer: Viewer, session: ReadSession, context: Ctx
) -> DeviceDetail:
    """What it runs, what it says of itself, its groups and pins."""
    row = service.get_device(session, device)
    return detail(
        row,
        service.models_of(session, [row])[row.id],
        context.get(LastPolls).of(row.name),
        silence(context.settings, context.clock()),
        groups=[group.name for group in groups_of(session, row)],
        pins=service.pins_of(session, row),
        push=context.get(PushChannels).of(row.name),
    )


@router.patch(
    "/devices/{device}", summary="Set a device's labels", responses=responses(DeviceUnknown)
)
def set_labels(
    device: DeviceName,
    operator: Operator,
    session: WriteSession,
    now: Now,
    context: Ctx,
    body: LabelsRequest,
) -> DeviceSummary:
    """The labels given replace all that the device had. A group's selector may take it now."""
    row = service.set_labels(session, name=device, labels=body.labels, actor=str(operator), now=now)
    return _summaries(session, context, [row])[0]


@router.post(
    "/devices/{device}/accept",
    operation_id="accept_device",
    summary="Accept a pending device",
    responses=responses(DeviceUnknown, WrongDeviceState),
)
def accept(
    device: DeviceName, operator: Operator, session: WriteSession, now: Now, context: Ctx
) -> DeviceSummary:
    """Compare its `keyid` with what the device shows before you do."""
    row = service.accept(session, name=device, actor=str(operator), now=now)
    return _summaries(session, context, [row])[0]


@router.post(
    "/devices/{device}/reject",
    operation_id="reject_device",
    status_code=204,
    summary="Reject a pending device",
    responses=responses(DeviceUnknown, WrongDeviceState),
)
def reject(device: DeviceName, operator: Operator, session: WriteSession, now: Now) -> None:
    """The device is forgotten and may ask again."""
    service.reject(session, name=device, actor=str(operator), now=now)


@router.post(
    "/devices/{device}/revoke",
    operation_id="revoke_device",
    summary="Revoke a device's key and tokens permanently",
    responses=responses(DeviceUnknown, WrongDeviceState),
)
def revoke(
    device: DeviceName, operator: Operator, session: WriteSession, now: Now, context: Ctx
) -> DeviceSummary:
    """For a lost or stolen device. To return under its name it needs a new key and a code."""
    row = service.revoke(session, name=device, actor=str(operator), now=now)
    return _summaries(session, context, [row])[0]


@router.post(
    "/devices/{device}/settle",
    operation_id="settle_device",
    summary="End a key conflict",
    responses=responses(DeviceUnknown),
)
def settle(
    device: DeviceName, operator: Operator, session: WriteSession, now: Now, context: Ctx
) -> DeviceSummary:
    """Two machines used it. Do this when one of them was enrolled anew or is gone: the device is
    offered versions again. If both are still there, the conflict comes back."""
    row = conflicts.settle(session, name=device, actor=str(operator), now=now)
    return _summaries(session, context, [row])[0]


@router.post(
    "/devices/{device}/decommission",
    operation_id="decommission_device",
    summary="Decommission a device",
    responses=responses(DeviceUnknown, WrongDeviceState),
)
def decommission(
    device: DeviceName, operator: Operator, session: WriteSession, now: Now, context: Ctx
) -> DeviceSummary:
    """Its history stays. It can return with an enrolment code."""
    row = service.decommission(session, name=device, actor=str(operator), now=now)
    return _summaries(session, context, [row])[0]


@router.get(
    "/devices/{device}/events",
    operation_id="list_device_events",
    summary="List a device's events",
    responses=responses(DeviceUnknown, BadCursor),
)
def list_events(
    device: DeviceName, viewer: Viewer, session: ReadSession, page: Paging
) -> Page[DeviceEventView]:
    """Newest first, in the order in which they came."""
    rows, cursor = service.list_events(session, name=device, page=page)
    return Page(items=[DeviceEventView.model_validate(row) for row in rows], next_cursor=cursor)


@router.get("/enrolment-codes", summary="List enrolment codes", responses=responses(BadCursor))
def list_codes(operator: Operator, session: ReadSession, page: Paging) -> CountedPage[CodeView]:
    """Newest first, including used and revoked ones, without the codes themselves."""
    rows, cursor = codes.list_codes(session, page=page)
    return CountedPage(
        items=[CodeView.model_validate(row) for row in rows],
        next_cursor=cursor,
        total=count_rows(session, EnrolmentCodeRow),
    )


@router.post(
    "/enrolment-codes",
    status_code=201,
    summary="Create enrolment codes",
    dependencies=[NO_STORE],
)
def make_codes(operator: Operator, session: WriteSession, now: Now, body: CodesRequest) -> NewCodes:
    """Each code enrols one device, once. The response contains the codes, which are shown only
    once."""
    issued = codes.make_codes(
        session,
        count=body.count,
        labels=body.labels,
        device=body.device,
        expires_in_s=body.expires_in_s,
        actor=str(operator),
        now=now,
    )
    shown = [(CodeView.model_validate(code.row).model_dump(), code.plaintext) for code in issued]
    return NewCodes(items=[NewCodeView(**view, code=plaintext) for view, plaintext in shown])


@router.delete(
    "/enrolment-codes/{code_id}",
    status_code=204,
    summary="Revoke an unused enrolment code",
    responses=responses(CodeUnknown, CodeUsed),
)
def revoke_code(code_id: CodeId, operator: Operator, session: WriteSession, now: Now) -> None:
    """Only while nobody has used it."""
    codes.revoke_code(session, code_id=code_id, actor=str(operator), now=now)

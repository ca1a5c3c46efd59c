"""`/api/v1/devices/{device}/diagnostics`: ask for them, see whether they came, take them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path, Response
from pydantic import Field

from pilotwave_server.deps import Now, Operator, ReadSession, WriteSession
from pilotwave_server.devices.errors import DeviceUnknown, WrongDeviceState
from pilotwave_server.devices.service import get_device
from pilotwave_server.diagnostics import service
from pilotwave_server.diagnostics.service import DiagnosticsUnknown
from pilotwave_server.fields import ApiReply, ApiRequest, DeviceName
from pilotwave_server.paging import BadCursor, Page, Paging
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="devices")
Number = Annotated[int, Path(ge=1, le=2**62)]


class DiagnosticsRequest(ApiRequest):
    reader: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="The public half of the reader's key: the 32 raw bytes of an X25519 key.",
    )


class DiagnosticsView(ApiReply):
    id: int
    reader: str
    state: str = Field(description="`waiting`, `answered`, `refused` or `replaced`.")
    detail: str | None = Field(description="Why the device refused.")
    asked_by: str
    asked_at: datetime
    answered_at: datetime | None


@router.post(
    "/devices/{device}/diagnostics",
    operation_id="ask_for_diagnostics",
    status_code=201,
    summary="Ask a device for its log and state",
    responses=responses(DeviceUnknown, WrongDeviceState),
)
def ask(
    device: DeviceName, operator: Operator, session: WriteSession, now: Now,
    body: DiagnosticsRequest,
) -> DiagnosticsView:  # fmt: skip
    """It sends them after its next check-in, sealed for the reader's key, if its settings name that
    key. An earlier wish that is still open gives way."""
    made = service.ask(session, device=device, reader=body.reader, actor=str(operator), now=now)
    return DiagnosticsView.model_validate(made)


@router.get(
    "/devices/{device}/diagnostics",
    operation_id="list_diagnostics",
    summary="List a device's diagnostics",
    responses=responses(DeviceUnknown, BadCursor),
)
def list_diagnostics(
    device: DeviceName, operator: Operator, session: ReadSession, page: Paging
) -> Page[DiagnosticsView]:
    """Newest first. They are kept for a week."""
    rows, cursor = service.list_of(session, get_device(session, device), page=page)
    return Page(items=[DiagnosticsView.model_validate(row) for row in rows], next_cursor=cursor)


@router.get(
    "/devices/{device}/diagnostics/{number}",
    operation_id="get_diagnostics",
    summary="Take a device's diagnostics",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {}}},
        **responses(DeviceUnknown, DiagnosticsUnknown),
    },
)
def get(device: DeviceName, number: Number, operator: Operator, session: ReadSession) -> Response:
    """The envelope that the device signed; what is in it, the reader's key opens."""
    found = service.find(session, get_device(session, device), number)
    if found.envelope is None:
        raise DiagnosticsUnknown(f"{device} has not answered yet")
    return Response(
        found.envelope, media_type="application/json", headers={"Cache-Control": "no-store"}
    )


@router.delete(
    "/devices/{device}/diagnostics/{number}",
    operation_id="delete_diagnostics",
    status_code=204,
    summary="Delete a device's diagnostics",
    responses=responses(DeviceUnknown, DiagnosticsUnknown),
)
def delete(
    device: DeviceName, number: Number, operator: Operator, session: WriteSession, now: Now
) -> None:
    """Withdraw a wish, or delete what came."""
    service.withdraw(session, device=device, number=number, actor=str(operator), now=now)

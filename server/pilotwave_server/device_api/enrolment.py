"""`POST /device/v1/enrol`, and the hot paths as routes, so that the OpenAPI document has them."""

from __future__ import annotations

from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi import Depends, Request, Response
from pydantic import Field

from pilotwave_protocol import dsse
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.messages.enrol import ENROL_TYPE, MAX_ENROL_BYTES, Enrol, parse_enrol
from pilotwave_server.db import fleet_row
from pilotwave_server.deps import Ctx, Now, WriteSession
from pilotwave_server.device_api.body import ReportTooLarge
from pilotwave_server.device_api.budgets import TooManyCheckIns
from pilotwave_server.device_api.check_in import (
    BadCheckIn,
    BadSignature,
    CheckIns,
    FromOtherFleet,
    Pending,
    UnknownDevice,
)
from pilotwave_server.device_api.poll import Polls, RevokedToken
from pilotwave_server.device_api.route_parts import (
    ENVELOPE,
    ENVELOPE_BODY,
    PREFIX,
    DeviceCredentials,
    Handled,
)
from pilotwave_server.device_api.tokens import BadToken, ExpiredToken
from pilotwave_server.devices.enrolment import enrol
from pilotwave_server.devices.errors import (
    BadCode,
    BadEnrolment,
    KeyRevoked,
    NameTaken,
    TooManyPending,
)
from pilotwave_server.edge import BodyTooSlow
from pilotwave_server.fields import ApiReply
from pilotwave_server.pacing import TooManyRefusals, address_of
from pilotwave_server.problems import DatabaseUnavailable, responses
from pilotwave_server.registry.trust import DirectorKeyUnknown, TrustNotReady
from pilotwave_server.routing import root_router
from pilotwave_server.telemetry.freshness import StaleSeq
from pilotwave_server.telemetry.store import Revoked

router = root_router(tag="device", prefix=PREFIX)


class EnrolAnswer(ApiReply):
    device: str
    state: str = Field(description="`enrolled`, or `pending` until an operator accepts.")
    fleet: str
    poll_interval_s: int = Field(description="How often to poll, in seconds.")
    check_in_interval_s: int = Field(description="How often to check in, in seconds.")


class TufHint(ApiReply):
    root: int
    timestamp: int
    snapshot: int


class DiagnosticsWished(ApiReply):
    id: int
    reader: str = Field(description="The X25519 key that the answer is to be sealed for.")


class CheckInAnswer(ApiReply):
    token: str = Field(description="Reads this device's directive and blobs.")
    token_expires_in_s: int
    poll_interval_s: int
    check_in_interval_s: int
    acked_event: int = Field(description="Events up to this number are stored.")
    tuf: TufHint = Field(description="The newest metadata versions, as an unsigned hint.")
    now: str = Field(description="The server's time, for display.")
    acked_metric: int = Field(description="Windows of metrics up to this number are stored.")
    accepts: list[str] = Field(
        description="Fields of later check-ins that this server can read: `numbering` stands for "
        "`numbering`, `boot` and `challenge`."
    )
    diagnostics: DiagnosticsWished | None = Field(
        description="What an operator wants to know; null: nothing."
    )


async def read_wish(request: Request) -> Enrol:
    """The wish in the body, signed by the key that it names. BadEnrolment, BadSignature."""
    raw = await request.body()
    if len(raw) > MAX_ENROL_BYTES:
        raise ReportTooLarge(MAX_ENROL_BYTES)
    try:
        claimed = dsse.peek_unverified(raw, payload_type=ENROL_TYPE, max_bytes=MAX_ENROL_BYTES)
        wish = parse_enrol(claimed.payload)
    except ProtocolError as error:
        raise BadEnrolment(f"this is not an enrolment: {error}") from error
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(wish.public_key))
        dsse.open_envelope(
            raw, payload_type=ENROL_TYPE, keys={dsse.keyid(key): key}, max_bytes=MAX_ENROL_BYTES
        )
    except (ProtocolError, ValueError) as error:
        raise BadSignature("expected an envelope signed by the key that it names") from error
    return wish


@router.post(
    "/enrol",
    status_code=201,
    summary="Ask to join the fleet",
    openapi_extra=ENVELOPE_BODY,
    responses={
        200: {"model": EnrolAnswer, "description": "It was so already."},
        **responses(
            BadCode,
            KeyRevoked,
            NameTaken,
            BadEnrolment,
            BadSignature,
            ReportTooLarge,
            TooManyPending,
            DatabaseUnavailable,
        ),
    },
)
def ask_to_join(
    wish: Annotated[Enrol, Depends(read_wish)],
    session: WriteSession,
    now: Now,
    context: Ctx,
    response: Response,
    request: Request,
) -> EnrolAnswer:
    """With a one-time code the device is in at once; without one it waits for an operator.

    The envelope is signed by the device's new key. Repeating it changes nothing.
    """
    check_in_s, address = context.settings.check_in_interval_s, address_of(request.scope)
    enrolled = enrol(session, wish=wish, check_in_s=check_in_s, now=now, address=address)
    if not enrolled.changed:
        response.status_code = 200
    return EnrolAnswer(
        device=enrolled.row.name,
        state=enrolled.row.state,
        fleet=fleet_row(session).fleet,
        poll_interval_s=context.settings.poll_interval_s,
        check_in_interval_s=check_in_s,
    )


@router.post(
    "/check-in",
    summary="Report, signed by the device",
    openapi_extra=ENVELOPE_BODY,
    status_code=200,
    response_class=Handled,
    responses={
        200: {"model": CheckInAnswer, "description": "Stored."},
        **responses(
            BadCheckIn,
            UnknownDevice,
            BadSignature,
            Revoked,
            Pending,
            FromOtherFleet,
            StaleSeq,
            ReportTooLarge,
            BodyTooSlow,
            TooManyCheckIns,
            TooManyRefusals,
            DatabaseUnavailable,
        ),
    },
)
async def check_in(context: Ctx) -> Response:
    """Answered only after the report is durably stored. `seq` must rise with each."""
    return Handled(context.get(CheckIns))


@router.get(
    "/directive",
    summary="What the device is to run, signed",
    status_code=200,
    response_class=Handled,
    responses={
        200: {
            "description": "The directive, in an envelope signed by the director key.",
            "content": {"application/json": {"schema": ENVELOPE}},
        },
        304: {"description": "Nothing changed since the ETag in If-None-Match."},
        **responses(
            BadToken,
            ExpiredToken,
            RevokedToken,
            TrustNotReady,
            DirectorKeyUnknown,
            DatabaseUnavailable,
        ),
    },
)
async def directive(context: Ctx, token: DeviceCredentials) -> Response:
    """With the read token of the last check-in. `pilotwave-tuf` hints at the newest metadata."""
    return Handled(context.get(Polls))

"""What devices send signed, as routes, so that the OpenAPI document has them (`sealed` answers)."""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import Field

from pilotwave_server.blobs.port import OffsetMismatch
from pilotwave_server.captures.service import BadCase, CapturesFull
from pilotwave_server.deps import Ctx
from pilotwave_server.device_api import front
from pilotwave_server.device_api.body import ReportTooLarge
from pilotwave_server.device_api.poll import RevokedToken
from pilotwave_server.device_api.route_parts import (
    BYTES_BODY,
    ENVELOPE_BODY,
    PREFIX,
    DeviceCredentials,
    Handled,
)
from pilotwave_server.device_api.sealed import Doors
from pilotwave_server.device_api.tokens import BadToken, ExpiredToken
from pilotwave_server.diagnostics.service import BadDiagnostics
from pilotwave_server.edge import BodyTooSlow
from pilotwave_server.errors import ServerError
from pilotwave_server.fields import ApiReply
from pilotwave_server.learning.check_numbers import ImpossibleUpdate
from pilotwave_server.learning.pieces import BadPiece, UploadUnknown
from pilotwave_server.learning.statements import BadUpdate, RoundOver
from pilotwave_server.learning.updates import RoundFull, UpdateRepeated
from pilotwave_server.pacing import TooManyRefusals
from pilotwave_server.problems import DatabaseUnavailable, responses
from pilotwave_server.routing import root_router

router = root_router(tag="device", prefix=PREFIX)
_EACH = (
    BadToken,
    ExpiredToken,
    RevokedToken,
    ReportTooLarge,
    BodyTooSlow,
    TooManyRefusals,
    DatabaseUnavailable,
)
"""What every door may refuse."""


class UpdateBegun(ApiReply):
    offset: int = Field(description="So many bytes of the numbers are here: go on behind them.")


def _door(
    path: str,
    name: str,
    summary: str,
    told: str,
    *refuses: type[ServerError],
    body: dict[str, Any],
    answer: type[ApiReply] | None = None,
) -> None:
    async def door(context: Ctx, token: DeviceCredentials) -> Response:
        return Handled(context.get(Doors)[path])

    found = responses(*refuses, *_EACH)
    if answer is not None:
        found = {200: {"model": answer, "description": "It may go on."}, **found}
    router.post(
        path.removeprefix(PREFIX),
        name=name,
        summary=summary,
        description=told,
        openapi_extra=body,
        status_code=204 if answer is None else 200,
        response_class=Handled,
        responses=found,
    )(door)


_door(
    front.DIAGNOSTICS,
    "diagnostics",
    "Answer a wish for diagnostics, signed by the device",
    "With the read token of the last check-in, whose answer told of the wish.",
    BadDiagnostics,
    body=ENVELOPE_BODY,
)
_door(
    front.CAPTURES,
    "captures",
    "Send a captured case, signed by the device",
    "With the read token of the last check-in. A case that is kept already is answered alike.",
    BadCase,
    CapturesFull,
    body=BYTES_BODY,
)
_door(
    front.UPDATES,
    "updates",
    "Send an update of a training plan, signed by the device",
    "With the read token of the last check-in. The very same update again is answered alike.",
    BadUpdate,
    ImpossibleUpdate,
    RoundOver,
    UpdateRepeated,
    RoundFull,
    body=BYTES_BODY,
)
_door(
    front.UPDATE_BEGIN,
    "begin_update",
    "Begin, or go on with, an update that comes in pieces",
    "With an update's statement, signed by the device. An update that is whole is here whole.",
    BadUpdate,
    RoundOver,
    UpdateRepeated,
    RoundFull,
    body=ENVELOPE_BODY,
    answer=UpdateBegun,
)
_door(
    front.UPDATE_PIECES,
    "update_pieces",
    "Send a piece of an update",
    "65,536 bytes, the last one less. With the last one, the update is checked and kept.",
    BadPiece,
    UploadUnknown,
    OffsetMismatch,
    BadUpdate,
    ImpossibleUpdate,
    RoundOver,
    RoundFull,
    body=BYTES_BODY,
)
_door(
    front.DECLINES,
    "declines",
    "Say why a device takes no part in a round, signed by the device",
    "With the read token of the last check-in, once for each reason. Its last word counts.",
    BadUpdate,
    RoundOver,
    body=ENVELOPE_BODY,
)
_door(
    front.MASKED,
    "masked",
    "Send a message of a masked round, signed by the device",
    "With the read token of the last check-in: keys, shares, masked numbers, or an answer to "
    "whose\nmasks are to go. What the device has sent already is answered alike.",
    BadUpdate,
    RoundOver,
    UpdateRepeated,
    RoundFull,
    body=BYTES_BODY,
)

"""What the routes of devices share: who sends, what a body is, and handlers that answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from pilotwave_server.context import Context
from pilotwave_server.device_api.poll import Polls

PREFIX = "/device/v1"
device_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="deviceToken",
    bearerFormat="<key id>.<device>.<generation>.<expires>.<mac>",
    description="A device's read token, from its last check-in.",
)
DeviceCredentials = Annotated[HTTPAuthorizationCredentials | None, Depends(device_bearer)]

TEXT = {"type": "string"}
SIGNATURE = {
    "type": "object",
    "required": ["keyid", "sig"],
    "additionalProperties": False,
    "properties": {"keyid": TEXT, "sig": {**TEXT, "format": "byte"}},
}
ENVELOPE: dict[str, Any] = {
    "type": "object",
    "description": "A DSSE envelope, signed with Ed25519 (docs/protocol.md, section 2).",
    "required": ["payloadType", "payload", "signatures"],
    "additionalProperties": False,
    "properties": {
        "payloadType": TEXT,
        "payload": {**TEXT, "format": "byte"},
        "signatures": {"type": "array", "minItems": 1, "maxItems": 8, "items": SIGNATURE},
    },
}


def _body(media_type: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}


ENVELOPE_BODY = _body("application/json", ENVELOPE)
BYTES_BODY = _body("application/octet-stream", {})
"""For a route's `openapi_extra`: what it reads."""


async def name_of_sender(request: Request, context: Context) -> str:
    """Name the device whose token came along. BadToken, ExpiredToken, RevokedToken."""
    authorization = request.headers.get("authorization", "").encode("latin-1")
    return (await context.get(Polls).known(authorization)).name


class Handled(Response):
    """A response that a plain ASGI handler gives."""

    def __init__(self, handler: ASGIApp) -> None:
        super().__init__()
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handler(scope, receive, send)

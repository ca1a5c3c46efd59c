"""Read a device's request body: bounded in size and in time, whatever the sender does."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from starlette.types import Receive, Scope

from pilotwave_server.edge import BodyTooSlow
from pilotwave_server.errors import TooLarge

DEADLINE_S = 10.0
CLOSE = {"Connection": "close"}


class ReportTooLarge(TooLarge):
    code: ClassVar[str] = "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"expected at most {limit} bytes", headers=CLOSE, max_bytes=limit)


class SenderGone(Exception):
    """The sender went away before its request was whole. There is nobody to answer."""


async def read_body(
    scope: Scope, receive: Receive, *, limit: int, within_s: float = DEADLINE_S
) -> bytes:
    """Return the whole body. Raises ReportTooLarge, BodyTooSlow, Gone."""
    for name, value in scope["headers"]:
        # the HTTP parser has refused a length that is not made of digits
        if name == b"content-length" and int(value) > limit:
            raise ReportTooLarge(limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise ReportTooLarge(limit)
        return body
    try:
        return await asyncio.wait_for(_rest(dict(message), receive, limit), within_s)
    except asyncio.TimeoutError:
        raise BodyTooSlow(
            f"expected the whole body within {within_s:.0f} s", headers=CLOSE
        ) from None


async def _rest(message: dict[str, object], receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise SenderGone
        part = message.get("body", b"")
        assert isinstance(part, bytes)
        parts.append(part)
        size += len(part)
        if size > limit:
            raise ReportTooLarge(limit)
        if not message.get("more_body"):
            return b"".join(parts)
        message = dict(await receive())

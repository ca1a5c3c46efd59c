"""Take what a device sends signed: `POST /device/v1/diagnostics`, `…/captures`, `…/updates`, an
update piece by piece (`…/updates/begin`, `…/updates/pieces`), `…/declines` and `…/masked`. Plain
ASGI, so that no body is read before the sender is known by its token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from pilotwave_protocol.learning.decline import MAX_DECLINE_BYTES
from pilotwave_protocol.learning.masked.messages import MAX_MASKED_BYTES, MAX_MESSAGE_BYTES
from pilotwave_protocol.learning.update import (
    MAX_NUMBERS_BYTES,
    MAX_PIECE_HEAD_BYTES,
    MAX_UPDATE_BYTES,
    PIECE_BYTES,
)
from pilotwave_protocol.messages.case import MAX_CASE_BYTES
from pilotwave_protocol.messages.diagnostics import MAX_DIAGNOSTICS_BYTES
from pilotwave_server.captures import service as captures
from pilotwave_server.captures.service import Bounds
from pilotwave_server.context import Context
from pilotwave_server.device_api import front
from pilotwave_server.device_api.body import SenderGone, read_body
from pilotwave_server.device_api.poll import Polls
from pilotwave_server.diagnostics import service as diagnostics
from pilotwave_server.errors import ServerError
from pilotwave_server.learning import declines, pieces, updates
from pilotwave_server.learning.masked import take as masked
from pilotwave_server.problems import error_response

DEADLINE_S = 120.0
_ENVELOPE_BYTES = 3 * MAX_UPDATE_BYTES
Take = Callable[[str, bytes], "dict[str, int] | None"]
"""Keeps what the device of this name sent; returns what it is answered, if anything."""


class SealedDoor:
    """Asks who sends, reads, hands on, answers."""

    def __init__(self, context: Context, polls: Polls, take: Take, *, limit: int) -> None:
        self._polls = polls
        self._pacing = context.pacing
        self._take = take
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._pacing.wait(scope)
            authorization = dict(scope["headers"]).get(b"authorization", b"")
            record = await self._polls.known(authorization)
            raw = await read_body(scope, receive, limit=self._limit, within_s=DEADLINE_S)
            said = await run_in_threadpool(self._take, record.name, raw)
        except SenderGone:
            return
        except ServerError as error:
            if error.status < 500:
                self._pacing.refused(scope)
            await error_response(error)(scope, receive, send)
            return
        answer = Response(status_code=204) if said is None else JSONResponse(said)
        await answer(scope, receive, send)


class Doors(dict[str, SealedDoor]):
    """What takes what devices send, by path."""


def make_doors(context: Context, polls: Polls) -> Doors:
    """Diagnostics and captured cases are sealed; what is of training plans is signed alone."""
    settings, clock = context.settings, context.clock
    bounds = Bounds(settings.captures_mb_per_device << 20, settings.captures_mb << 20)

    def kept_by(take: Callable[..., None], **more: Any) -> Take:
        def keep(device: str, raw: bytes) -> None:
            with context.db.write() as session:
                take(session, raw, device=device, now=clock(), **more)

        return keep

    def take_update(device: str, raw: bytes) -> None:
        with context.db.write() as session:
            refusal = updates.take(session, raw, device=device, now=clock())
        if refusal is not None:
            raise refusal

    def begin_update(device: str, raw: bytes) -> dict[str, int]:
        with context.db.write() as session:
            return {"offset": pieces.begin(session, raw, device=device, now=clock())}

    def take_piece(device: str, raw: bytes) -> None:
        pieces.take(context.db, raw, device=device, now=clock())

    takes: dict[str, tuple[Take, int]] = {
        front.DIAGNOSTICS: (kept_by(diagnostics.take), MAX_DIAGNOSTICS_BYTES),
        front.CAPTURES: (kept_by(captures.take, bounds=bounds), MAX_CASE_BYTES),
        front.UPDATES: (take_update, MAX_NUMBERS_BYTES + _ENVELOPE_BYTES),
        front.UPDATE_BEGIN: (begin_update, _ENVELOPE_BYTES),
        front.UPDATE_PIECES: (take_piece, MAX_PIECE_HEAD_BYTES + 1 + PIECE_BYTES),
        front.DECLINES: (kept_by(declines.take), 3 * MAX_DECLINE_BYTES),
        front.MASKED: (kept_by(masked.take), MAX_MASKED_BYTES + 3 * MAX_MESSAGE_BYTES),
    }
    return Doors(
        {
            path: SealedDoor(context, polls, take, limit=limit)
            for path, (take, limit) in takes.items()
        }
    )

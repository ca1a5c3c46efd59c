"""Take what a device sends signed: `POST /device/v1/diagnostics`, `…/captures`, `…/updates`, an
update piece by piece (`…/updates/begin`, `…/updates/pieces`), `…/declines` and `…/masked`. Plain
ASGI, so that no body is read before the sender is known by its token."""

from __future__ import annotations

from collections.abc import Callable

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


class DiagnosticsDoor(SealedDoor):
    """Takes answers to wishes for diagnostics."""

    def __init__(self, context: Context, polls: Polls) -> None:
        def take(device: str, raw: bytes) -> None:
            with context.db.write() as session:
                diagnostics.take(session, raw, device=device, now=context.clock())

        super().__init__(context, polls, take, limit=MAX_DIAGNOSTICS_BYTES)


class CapturesDoor(SealedDoor):
    """Takes captured cases."""

    def __init__(self, context: Context, polls: Polls) -> None:
        settings = context.settings
        bounds = Bounds(settings.captures_mb_per_device << 20, settings.captures_mb << 20)

        def take(device: str, raw: bytes) -> None:
            with context.db.write() as session:
                captures.take(session, raw, device=device, bounds=bounds, now=context.clock())

        super().__init__(context, polls, take, limit=MAX_CASE_BYTES)


class UpdatesDoor(SealedDoor):
    """Takes updates of rounds of training plans. They are signed, and not sealed."""

    def __init__(self, context: Context, polls: Polls) -> None:
        def take(device: str, raw: bytes) -> None:
            with context.db.write() as session:
                refusal = updates.take(session, raw, device=device, now=context.clock())
            if refusal is not None:
                raise refusal

        super().__init__(context, polls, take, limit=MAX_NUMBERS_BYTES + _ENVELOPE_BYTES)


class UpdateBeginDoor(SealedDoor):
    """Takes the statement of an update whose numbers follow in pieces; says how many are here."""

    def __init__(self, context: Context, polls: Polls) -> None:
        def take(device: str, raw: bytes) -> dict[str, int]:
            with context.db.write() as session:
                offset = pieces.begin(session, raw, device=device, now=context.clock())
            return {"offset": offset}

        super().__init__(context, polls, take, limit=_ENVELOPE_BYTES)


class UpdatePiecesDoor(SealedDoor):
    """Takes pieces of updates."""

    def __init__(self, context: Context, polls: Polls) -> None:
        def take(device: str, raw: bytes) -> None:
            pieces.take(context.db, raw, device=device, now=context.clock())

        super().__init__(context, polls, take, limit=MAX_PIECE_HEAD_BYTES + 1 + PIECE_BYTES)


class DeclinesDoor(SealedDoor):
    """Takes the word of devices that take no part in a round. They are signed, and not sealed."""

    def __init__(self, context: Context, polls: Polls) -> None:
        def take(device: str, raw: bytes) -> None:
            with context.db.write() as session:
                declines.take(session, raw, device=device, now=context.clock())

        super().__init__(context, polls, take, limit=3 * MAX_DECLINE_BYTES)


class MaskedDoor(SealedDoor):
    """Takes messages of masked rounds."""

    def __init__(self, context: Context, polls: Polls) -> None:
        def take(device: str, raw: bytes) -> None:
            with context.db.write() as session:
                masked.take(session, raw, device=device, now=context.clock())

        super().__init__(context, polls, take, limit=MAX_MASKED_BYTES + 3 * MAX_MESSAGE_BYTES)

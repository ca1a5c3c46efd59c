"""Take a device's diagnostics: `POST /device/v1/diagnostics`. Plain ASGI, so that no body is read
before the sender is known by its token."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from pilotwave_protocol.messages.diagnostics import MAX_DIAGNOSTICS_BYTES
from pilotwave_server.clock import Clock
from pilotwave_server.db import Database
from pilotwave_server.device_api.body import SenderGone, read_body
from pilotwave_server.device_api.poll import Polls
from pilotwave_server.diagnostics.service import take
from pilotwave_server.errors import ServerError
from pilotwave_server.pacing import Pacing
from pilotwave_server.problems import error_response

DEADLINE_S = 120.0


class DiagnosticsDoor:
    """Asks who sends, reads, hands on, answers."""

    def __init__(self, db: Database, polls: Polls, *, clock: Clock, pacing: Pacing) -> None:
        self._db = db
        self._polls = polls
        self._clock = clock
        self._pacing = pacing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._pacing.wait(scope)
            authorization = dict(scope["headers"]).get(b"authorization", b"")
            record = await self._polls.known(authorization)
            raw = await read_body(scope, receive, limit=MAX_DIAGNOSTICS_BYTES, within_s=DEADLINE_S)
            await run_in_threadpool(self._take, record.name, raw)
        except SenderGone:
            return
        except ServerError as error:
            if error.status < 500:
                self._pacing.refused(scope)
            await error_response(error)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def _take(self, device: str, raw: bytes) -> None:
        with self._db.write() as session:
            take(session, raw, device=device, now=self._clock())

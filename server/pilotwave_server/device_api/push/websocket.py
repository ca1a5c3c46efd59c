"""The devices' WebSockets: `GET /device/v1/push`, upgraded.

Each connection is one small protocol object on the server's own event loop, without a task and
without compression, because there may be tens of thousands. The device sends pings, which are
answered, and nothing else. It is let in by the token that its polls carry; who loses that right is
closed out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from typing import Any, ClassVar, cast

from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from pilotwave_protocol.push import WEBSOCKET_PATH, call_to_poll
from pilotwave_server.device_api.poll import Polls
from pilotwave_server.device_api.push.listeners import PushListeners
from pilotwave_server.errors import NotFound, ServerError, Unavailable
from pilotwave_server.problems import MEDIA_TYPE, error_body

MAX_MESSAGE = 256
MAX_UNREAD = 4096
MAX_FRAMES = 30  # between two sweeps
SWEEP_S = 10.0
REVOKED = 4401
REPLACED = 4409

# what the library says of a connection is a peer's doing, and no news to an operator
log = logging.getLogger(f"{__name__}.connection")
log.setLevel(logging.ERROR)


class NoSuchChannel(NotFound):
    code: ClassVar[str] = "no_such_channel"


class TooManyChannels(Unavailable):
    """This process holds as many WebSockets as it may (`PILOTWAVE_PUSH_CONNECTIONS`)."""

    code: ClassVar[str] = "too_many_channels"


class TooManyHandshakes(Unavailable):
    """More devices want a WebSocket at once than the server takes on."""

    code: ClassVar[str] = "too_many_handshakes"


class Door:
    """Makes a `Session` of each connection that asks for a WebSocket, and ends those that are
    silent for `silent_s`. Called by uvicorn (its `ws` setting)."""

    def __init__(
        self, desk: PushListeners, polls: Polls, *, limit: int, per_second: int, silent_s: float
    ) -> None:
        self.desk = desk
        self.polls = polls
        self.sessions: set[Session] = set()
        self._limit = limit
        self._per_second = per_second
        self._silent_s = silent_s
        self._allowance, self._at = float(per_second), time.monotonic()
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, *, config: Any, server_state: Any, app_state: Any) -> Session:
        return Session(self, server_state)

    def check_room(self) -> None:
        """Raise `TooManyChannels` or `TooManyHandshakes`; otherwise count one handshake."""
        if len(self.sessions) >= self._limit:
            raise TooManyChannels(
                f"this process holds {self._limit} WebSockets already: go on polling",
                retry_after_s=60,
            )
        now = time.monotonic()
        grown = self._allowance + (now - self._at) * self._per_second
        self._allowance, self._at = min(grown, float(self._per_second)), now
        if self._allowance < 1:
            raise TooManyHandshakes("too many at once: come again later", retry_after_s=2)
        self._allowance -= 1

    def opened(self, session: Session) -> None:
        """Keep an eye on a session."""
        self.sessions.add(session)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        silent_since = time.monotonic() - self._silent_s
        for session in [s for s in self.sessions if s.heard < silent_since]:
            session.abort()
        for session in self.sessions:
            session.frames = 0
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SWEEP_S, self._sweep) if self.sessions else None


class Session(asyncio.Protocol):
    """One device's WebSocket, from the handshake on (`desk.Listener`)."""

    __slots__ = (
        "_door",
        "_server_state",
        "_task",
        "_transport",
        "_ws",
        "digest",
        "frames",
        "generation",
        "heard",
        "name",
    )

    def __init__(self, door: Door, server_state: Any) -> None:
        self._door = door
        self._server_state = server_state
        self._ws = ServerProtocol(max_size=MAX_MESSAGE, logger=log)
        self._task: asyncio.Task[None] | None = None
        self.name = self.digest = ""
        self.generation: int | None = None
        self.frames = 0
        self.heard = time.monotonic()

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._ws.receive_data(data)
        for event in self._ws.events_received():
            if isinstance(event, Request):
                self._task = asyncio.get_running_loop().create_task(self._greet(event))
            elif self._ws.state is State.CONNECTING:
                self.abort()
                return
            else:
                self._take(event)
        self._flush()

    def _take(self, frame: Any) -> None:
        self.heard = time.monotonic()
        self.frames += 1
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT) or self.frames > MAX_FRAMES:
            self._close(CloseCode.POLICY_VIOLATION, "a device sends a ping now and then, no more")

    def eof_received(self) -> None:
        self._ws.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(self)
        self._door.sessions.discard(self)
        self._door.desk.left(self)
        if self._task is not None:
            self._task.cancel()

    def shutdown(self) -> None:
        """The server ends (uvicorn calls this)."""
        self._close(CloseCode.SERVICE_RESTART, "the server ends")
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection: whoever is at its other end does not play by the rules."""
        self._transport.abort()

    # --- the handshake

    async def _greet(self, request: Request) -> None:
        door, ws = self._door, self._ws
        try:
            if request.path != WEBSOCKET_PATH:
                raise NoSuchChannel(f"expected a WebSocket at {WEBSOCKET_PATH}")
            door.check_room()
            record = await door.polls.known(authorization(request))
        except ServerError as error:
            ws.send_response(refusal(error))
            self._flush()
            self._transport.close()
            return
        finally:
            self._task = None
        response = ws.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            ws.send_response(response)
            self._flush()
            self._transport.close()
            return
        self.name, self.generation = record.name, record.generation
        door.opened(self)
        # first at the desk, then the answer: what changes after the device's next poll is called
        door.desk.arrived(self, call=False)
        del response.headers["Date"]
        ws.send_response(response)
        self._flush()

    # --- what the desk asks for

    def call(self, within_s: float) -> None:
        """Tell the device to poll. One that does not read what it was told is dropped."""
        if self._ws.state is State.OPEN:
            frame = Frame(Opcode.TEXT, call_to_poll(within_s))
            self._send(frame.serialize(mask=False, extensions=[]))

    def end(self) -> None:
        """Close: the token is good no more, or the device has opened another channel."""
        now = self._door.desk.listeners.get(self.name)
        if now is None or now is self:
            self._close(REVOKED, "this device may not listen any more")
        else:
            self._close(REPLACED, "this device has opened another channel")

    def _close(self, code: int, reason: str) -> None:
        if self._ws.state is State.OPEN:
            self._ws.send_close(code, reason)
            self._flush()
        self._transport.close()

    def _flush(self) -> None:
        for data in self._ws.data_to_send():
            if data:
                self._send(data)
            else:
                self._transport.close()

    def _send(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self.abort()
        elif not self._transport.is_closing():
            self._transport.write(data)


def authorization(request: Request) -> bytes:
    """The `Authorization` header, b"" if there is none or more than one."""
    found = request.headers.get_all("Authorization")
    return found[0].encode("latin-1") if len(found) == 1 else b""


def refusal(error: ServerError) -> Response:
    """An error as the HTTP answer to a handshake."""
    body = error_body(error)
    headers = Headers({**error.headers, "Content-Type": MEDIA_TYPE, "Connection": "close"})
    headers["Content-Length"] = str(len(body))
    return Response(error.status, HTTPStatus(error.status).phrase, headers, body)

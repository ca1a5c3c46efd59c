"""A WebSocket to the server, on one socket that the agent's own loop watches."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from pilotwave_agent.net.authorities import ClientCert, tls_context
from pilotwave_agent.push.channel import PONG_S, Lost
from pilotwave_agent.settings.proxies import DIRECT, Proxies, connect
from pilotwave_protocol.push import MAX_CALL_BYTES, WEBSOCKET_PATH

_BLOCK = 4096
_MOST_AT_ONCE = 16  # blocks; a server that has more to say is none


class WebSocketChannel:
    """An open WebSocket (`channel.PushChannel`)."""

    alive = True

    def __init__(
        self,
        server: str,
        token: str,
        *,
        ca_file: str | None,
        client: ClientCert | None = None,
        timeout_s: float,
        ping_s: float,
        proxies: Proxies = DIRECT,
    ) -> None:
        """Connect, within `timeout_s`. Raises `Lost`."""
        self._ping_s = ping_s
        self._heard: float | None = None
        self._pinged: float | None = None
        ends = time.monotonic() + timeout_s
        try:
            self._ws = ClientProtocol(
                parse_uri("ws" + server.removeprefix("http") + WEBSOCKET_PATH),
                max_size=MAX_CALL_BYTES,
            )
            tls = tls_context(ca_file, client) if server.startswith("https:") else None
            self._socket = _connected(server, tls, timeout_s, proxies)
        except (OSError, ValueError, WebSocketException) as e:
            raise Lost(f"no WebSocket to the server: {e}") from e
        self._calls: list[bytes] = []
        try:
            self._shake_hands(token, ends)
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def _shake_hands(self, token: str, ends: float) -> None:
        request = self._ws.connect()
        request.headers["Authorization"] = f"Bearer {token}"
        self._ws.send_request(request)
        try:
            self._send()
            while self._ws.state is State.CONNECTING and self._ws.handshake_exc is None:
                self._socket.settimeout(max(ends - time.monotonic(), 0.001))
                data = self._socket.recv(_BLOCK)
                self._take(data)
        except (OSError, EOFError, WebSocketException) as e:
            raise Lost(f"no WebSocket to the server: {e}") from e
        if self._ws.close_rcvd:  # it came in one piece with the answer to the handshake
            raise Lost(self._farewell())
        if self._ws.state is not State.OPEN:
            raise _refused(self._ws.handshake_exc)

    def fileno(self) -> int:
        return self._socket.fileno()

    def hear(self, now: float) -> list[bytes]:
        for _ in range(_MOST_AT_ONCE):
            try:
                data = self._socket.recv(_BLOCK)
            except (BlockingIOError, ssl.SSLWantReadError):
                break
            except OSError as e:
                raise Lost(f"the WebSocket broke: {e}") from e
            self._heard, self._pinged = now, None
            self._take(data)
            self._send()
            if not data or self._ws.state is not State.OPEN:
                raise Lost(self._farewell())
        else:
            raise Lost("the server says more on the WebSocket than it has to say")
        calls, self._calls = self._calls, []
        return calls

    def _take(self, data: bytes) -> None:
        if data:
            self._ws.receive_data(data)
        else:
            self._ws.receive_eof()
        for event in self._ws.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._calls.append(bytes(event.data))

    def _farewell(self) -> str:
        close = self._ws.close_rcvd or self._ws.close_sent
        why = f"{close.code} {ascii(close.reason)[:80]}" if close else "without a word"
        return f"the WebSocket was closed: {why}"

    def tend(self, now: float) -> float:
        if self._heard is None:
            self._heard = now
        if self._pinged is not None:
            if now >= self._pinged + PONG_S:
                raise Lost("the server does not answer on the WebSocket", silent=True)
            return self._pinged + PONG_S
        if now >= self._heard + self._ping_s:
            self._ws.send_ping(b"")
            self._send()
            self._pinged = now
            return now + PONG_S
        return self._heard + self._ping_s

    def _send(self) -> None:
        try:
            for data in self._ws.data_to_send():
                if data:
                    self._socket.sendall(data)
        except OSError as e:
            raise Lost(f"the WebSocket takes nothing more: {e}") from e

    def close(self) -> None:
        with contextlib.suppress(Lost, WebSocketException):
            if self._ws.state is State.OPEN:
                self._ws.send_close()
                self._send()
        self._socket.close()


def _connected(
    server: str, tls: ssl.SSLContext | None, timeout_s: float, proxies: Proxies
) -> socket.socket:
    found = urlsplit(server)
    host, port = found.hostname or "", found.port or (443 if tls else 80)
    proxy = proxies.to(found.scheme, host, port)
    if proxy:
        ends = time.monotonic() + timeout_s
        plain = connect(proxy, host, port, gap_s=timeout_s, ends=ends)
    else:
        plain = socket.create_connection((host, port), timeout=timeout_s)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return plain
    try:
        return tls.wrap_socket(plain, server_hostname=found.hostname)
    except BaseException:
        plain.close()
        raise


def _refused(error: Exception | None) -> Lost:
    response: Any = getattr(error, "response", None)
    if response is None:
        return Lost(f"no WebSocket to the server: {error or 'it hung up'}")
    status = int(response.status_code)
    after = response.headers.get("Retry-After", "")
    return Lost(
        f"the server takes no WebSocket from this device: {status}",
        after_s=min(float(after), 3600.0) if after.isdecimal() else 0.0,
        bad_token=status == HTTPStatus.UNAUTHORIZED,
    )

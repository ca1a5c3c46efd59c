"""A relay on plain HTTP between devices and their server, which answers some paths by itself: what
a thief of keys needs, who holds no server but sits on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

Forged = Callable[[str, str], bytes | None]
"""(path, the device of the token that came along): the body to answer with, or None to relay."""
_SENT_ON = ("authorization", "content-type", "if-none-match", "range", "if-range")
_SENT_BACK = ("content-type", "etag", "pilotwave-tuf", "retry-after", "content-range")


class Relay:
    """Relays to `origin`; `forged` may be set at any time."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.forged: Forged = honest
        self._client = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=8))
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                return

            def do_GET(self) -> None:
                relay._answer(self, b"")

            def do_POST(self) -> None:
                relay._answer(self, self.rfile.read(int(self.headers.get("Content-Length", "0"))))

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                return

        self._http = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where devices ask."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        """Be gone."""
        self._http.shutdown()
        self._http.server_close()
        self._client.close()

    def _answer(self, asked: BaseHTTPRequestHandler, body: bytes) -> None:
        device = asked.headers.get("Authorization", "").partition(".")[2].rsplit(".", 3)[0]
        found = self.forged(asked.path, device)
        if found is not None:
            _send(asked, 200, found, {})
            return
        headers = {n: v for n, v in asked.headers.items() if n.lower() in _SENT_ON}
        try:
            answer = self._client.request(
                asked.command, self.origin + asked.path, content=body, headers=headers
            )
        except httpx.HTTPError:
            asked.close_connection = True
            return
        back = {n: v for n, v in answer.headers.items() if n.lower() in _SENT_BACK}
        _send(asked, answer.status_code, answer.content, back)


def _send(asked: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
    asked.send_response_only(status)
    for name, value in headers.items():
        asked.send_header(name, value)
    if status != 304:
        asked.send_header("Content-Length", str(len(body)))
    asked.end_headers()
    if status != 304:
        asked.wfile.write(body)


def honest(path: str, device: str) -> None:
    """Forge nothing."""

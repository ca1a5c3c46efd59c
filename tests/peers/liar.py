"""A gateway between a device and a real server that answers itself when it is told to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

_HANDED_ON = ("authorization", "content-type", "if-none-match")
_HANDED_BACK = ("etag", "pilotwave-tuf", "retry-after", "content-type")


@dataclass(frozen=True)
class Lie:
    """An answer that no server gave."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Liar:
    """Hands requests on to `server`, but answers with `lies` while there are any.

    `lost` answers of the server are dropped: it took the request, the device never hears of it.
    `said` are the statuses that the server gave, by path.
    """

    def __init__(self, server: str) -> None:
        self.lies: deque[Lie] = deque()
        self.lost = 0
        self.said: list[tuple[str, int]] = []
        self._client = httpx.Client(base_url=server, timeout=30)
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                return

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                lie = liar.lies.popleft() if liar.lies else None
                found = lie or liar.hand_on(self.command, self.path, dict(self.headers), body)
                if found is None:
                    self.close_connection = True
                    return
                self.send_response_only(found.status)
                for name, value in found.headers.items():
                    self.send_header(name, value)
                if found.status != 304:
                    self.send_header("Content-Length", str(len(found.body)))
                self.end_headers()
                if found.status != 304:
                    self.wfile.write(found.body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def hand_on(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Lie | None:
        """Return what the server says; None where it is lost on the way back."""
        given = {k: v for k, v in headers.items() if k.lower() in _HANDED_ON}
        answer = self._client.request(method, path, headers=given, content=body or None)
        self.said.append((path, answer.status_code))
        if self.lost:
            self.lost -= 1
            return None
        back = {k: v for k, v in answer.headers.items() if k in _HANDED_BACK}
        return Lie(answer.status_code, answer.content, back)

    def close(self) -> None:
        """End it."""
        self._http.shutdown()
        self._http.server_close()
        self._client.close()

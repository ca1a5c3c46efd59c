"""A relay that tampers: it hands on every request and flips one byte of each blob and delta.

This is the demo's attacker between one device and the server. It trusts nobody and knows no
Pilotwave code.
"""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_DROP = {"connection", "transfer-encoding", "host", "keep-alive"}


class Relay(ThreadingHTTPServer):
    """Listens on a free loopback port; `tampered` counts the blobs that were changed."""

    daemon_threads = True

    def __init__(self, origin: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.origin = urlsplit(origin).netloc
        self.tampering = False
        self.tampered = 0
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, name="relay", daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Relay

    def _hand_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _DROP}
        origin = http.client.HTTPConnection(self.server.origin, timeout=30)
        try:
            origin.request(self.command, self.path, body or None, headers)
            answer = origin.getresponse()
            data = answer.read()
        finally:
            origin.close()
        if self.server.tampering and self.path.startswith(("/blobs/", "/deltas/")) and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
            self.server.tampered += 1
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _DROP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_HEAD = do_POST = _hand_on

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the account tells what matters."""

"""A gateway that counts: an HTTP proxy that notes how many bytes of which paths' bodies came down,
and may break an answer off."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "transfer-encoding", "keep-alive"}


class CountingProxy:
    """`came` holds bytes of bodies by the first part of the path, as `blobs`, `asked` how many
    requests. `cut` breaks the next answer of more bytes than that off there."""

    def __init__(self, url: str) -> None:
        self.came: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.cut: int | None = None
        self.cuts = 0
        target = urlsplit(url)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                return

            def do_GET(self) -> None:
                proxy.asked[self.path.split("/")[1]] += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                far = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
                try:
                    far.connect()
                    # little is on its way that is not counted yet
                    far.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                    far.putrequest(
                        self.command, self.path, skip_host=True, skip_accept_encoding=True
                    )
                    for name, value in self.headers.items():
                        far.putheader(name, value)
                    far.endheaders(body)
                    self._hand_on(far.getresponse())
                except OSError:
                    self.close_connection = True
                finally:
                    far.close()

            do_POST = do_GET

            def _hand_on(self, answer: http.client.HTTPResponse) -> None:
                self.send_response_only(answer.status, answer.reason)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP:
                        self.send_header(name, value)
                self.end_headers()
                kind, left = self.path.split("/")[1], proxy._allowed(answer.length or 0)
                while left and (piece := answer.read1(min(left, 1 << 16))):
                    self.wfile.write(piece)
                    proxy.came[kind] += len(piece)
                    left -= len(piece)
                if answer.length:
                    self.close_connection = True

        class Server(ThreadingHTTPServer):
            def handle_error(self, *words: object) -> None:
                return  # a line that breaks is what it is for

        self._http = Server(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def _allowed(self, length: int) -> int:
        if self.cut is None or length <= self.cut:
            return length
        cut, self.cut = self.cut, None
        self.cuts += 1
        return cut

    @contextmanager
    def running(self) -> Iterator[CountingProxy]:
        thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()

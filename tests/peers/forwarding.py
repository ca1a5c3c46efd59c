"""A forward proxy over plain HTTP: it leads to servers (CONNECT) and fetches whole URLs."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class ForwardProxy:
    """On a free port. `asked` is what was asked of it; `leads` maps a host's name to a port of this
    machine; with `credentials` it wants that `Proxy-Authorization`."""

    def __init__(self, leads: dict[str, int], credentials: str = "") -> None:
        self.leads, self.credentials = leads, credentials
        self.asked: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *words: object) -> None:
                return

            def _refused(self) -> bool:
                proxy.asked.append(f"{self.command} {self.path}")
                told = self.headers.get("Proxy-Authorization", "")
                if told == proxy.credentials:
                    return False
                self.send_response(407)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return True

            def do_CONNECT(self) -> None:
                if self._refused():
                    return
                host, _, _port = self.path.rpartition(":")
                to = proxy.leads.get(host.strip("[]"))
                if to is None:
                    self.send_error(502)
                    return
                with socket.create_connection(("127.0.0.1", to)) as far:
                    self.send_response(200, "Connection established")
                    self.end_headers()
                    _pump(self.connection, far)
                self.close_connection = True

            def do_GET(self) -> None:
                if self._refused():
                    return
                size = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(size) if size else None
                url = urlsplit(self.path)
                to = proxy.leads[url.hostname or ""]
                path = self.path.split("/", 3)[3]
                far = HTTPConnection("127.0.0.1", to)
                kept = {k: v for k, v in self.headers.items() if not k.startswith("Proxy-")}
                far.request(self.command, f"/{path}", body, kept)
                answer = far.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for key, value in answer.getheaders():
                    if key.lower() not in ("content-length", "connection", "date", "server"):
                        self.send_header(key, value)
                if answer.status != 304:
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                far.close()

            do_POST = do_HEAD = do_GET

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    @property
    def place(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self._http.server_port}"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.place}"

    def stop(self) -> None:
        """Be gone."""
        self._http.shutdown()
        self._http.server_close()


def _pump(near: socket.socket, far: socket.socket) -> None:
    def over(a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(1 << 16):
                b.sendall(data)
        with contextlib.suppress(OSError):
            b.shutdown(socket.SHUT_WR)

    other = threading.Thread(target=over, args=(far, near), daemon=True)
    other.start()
    over(near, far)
    other.join()

"""A peer that webhooks call: a real socket on loopback which answers well, badly, late or never."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass
class Call:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[socket.socket, threading.Event], None]


def says(raw: bytes) -> Answer:
    """Answer with these bytes."""
    return lambda connection, ending: connection.sendall(raw)


def status(code: int, *lines: str) -> Answer:
    head = "".join(f"{line}\r\n" for line in ("Content-Length: 0", *lines))
    return says(f"HTTP/1.1 {code} X\r\n{head}\r\n".encode())


def stalls(connection: socket.socket, ending: threading.Event) -> None:
    """Take the request and say nothing."""
    ending.wait(30)


def drips(connection: socket.socket, ending: threading.Event) -> None:
    """Send a header, a byte at a time, for ever."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not ending.wait(0.05):
        connection.sendall(b"a")


def floods(connection: socket.socket, ending: threading.Event) -> None:
    """Send headers without end, as fast as they are taken."""
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while not ending.is_set():
        connection.sendall(b"X-More: " + b"a" * 1000 + b"\r\n")


def endless_body(connection: socket.socket, ending: threading.Event) -> None:
    """Say 200 and never stop."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not ending.is_set():
        connection.sendall(b"3e8\r\n" + b"a" * 1000 + b"\r\n")


def hangs_up(connection: socket.socket, ending: threading.Event) -> None:
    """Close without a word."""


@dataclass
class Receiver:
    """Answers each call with the next of `script`, the last one for ever; keeps the calls."""

    url: str
    script: list[Answer]
    calls: list[Call] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, count: int, *, timeout_s: float = 30) -> list[Call]:
        """Wait until so many calls have come."""
        ends = time.monotonic() + timeout_s
        while len(self.calls) < count:
            assert time.monotonic() < ends, f"{len(self.calls)} of {count} calls came"
            time.sleep(0.02)
        return list(self.calls)

    def _serve(self, listener: socket.socket) -> None:
        while not self._ending.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError, IndexError):
            self.calls.append(_read(connection))
            answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            answer(connection, self._ending)


def _read(connection: socket.socket) -> Call:
    with connection.makefile("rb") as stream:
        path = stream.readline().split()[1].decode()
        headers = {}
        for line in iter(stream.readline, b"\r\n"):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Call(path, headers, stream.read(int(headers.get("content-length", 0))))


@contextlib.contextmanager
def receiver(*script: Answer) -> Iterator[Receiver]:
    """Run a receiver on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Receiver(f"http://127.0.0.1:{listener.getsockname()[1]}", list(script or [says(OK)]))
        thread = threading.Thread(target=made._serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made._ending.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)

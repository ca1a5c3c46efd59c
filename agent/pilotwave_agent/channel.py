"""One HTTP connection to the server, kept open between requests, that always ends on time.

It is the standard library's client, which costs a third of the memory of a pool of connections.
Added to it: a total deadline over headers and body (a read timeout alone lets a server drip one
byte now and then for ever), no redirects, no proxies from the environment, no inflating, and a
limit on what is read into memory. What is asked, and what an answer means, is the caller's.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pilotwave_protocol.errors import PilotwaveError

GAP_S = 10.0
DEADLINE_S = 30.0
MAX_BODY = 64 << 10


class Unreachable(PilotwaveError):
    """The server cannot be reached, or its answer broke off."""

    code = "unreachable"


class TooSlow(Unreachable):
    """The server takes longer than the deadline."""

    code = "too_slow"


class BadAnswer(PilotwaveError):
    """The server answered something that no Pilotwave server answers."""

    code = "bad_answer"


@dataclass(frozen=True)
class Answer:
    """A whole answer. Header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _TimedReader(io.RawIOBase):
    """Read a socket, no longer than `gap_s` at a time nor past the clock's `ends` in total."""

    def __init__(self, sock: socket.socket, gap_s: float, ends: float) -> None:
        self._raw, self._sock = sock.makefile("rb", buffering=0), sock
        self._gap_s, self._ends = gap_s, ends

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took longer than its deadline")
        self._sock.settimeout(min(left, self._gap_s))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class Streamed:
    """An answer whose body is still to be read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = {
            key.lower(): value for key, value in response.getheaders()
        }
        self._response = response

    @property
    def length(self) -> int | None:
        """How many bytes the server says are still to come, if it says so."""
        return self._response.length

    def read(self, limit: int = 1 << 16) -> bytes:
        """Return what has arrived, at most `limit` bytes; empty at the end.

        Raises `Unreachable` where the body breaks off, `TooSlow` where it stalls.
        """
        with _translated():
            data = self._response.read1(limit)
            if not data and self._response.length:
                raise http.client.IncompleteRead(b"", self._response.length)
            return data


class Channel:
    """A connection to one server. Not safe for threads."""

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: str | None = None,
        gap_s: float = GAP_S,
        deadline_s: float = DEADLINE_S,
        receive_buffer: int = 0,
    ) -> None:
        """`base_url` may carry a path; `ca_file` (PEM) replaces the system's roots.

        `receive_buffer` bytes are all that the system takes ahead of the reader (0: its own choice,
        megabytes), so that a reader who takes its time slows the line itself.
        """
        found = urlsplit(base_url)
        self._base = found.path.rstrip("/")
        self._tls = found.scheme == "https"
        self._host, self._port = found.hostname or "", found.port
        self._ca_file, self._gap_s, self._deadline_s = ca_file, gap_s, deadline_s
        self._receive_buffer = receive_buffer
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_body: int = MAX_BODY,
    ) -> Answer:
        """Return the whole answer, whatever its status.

        Raises `Unreachable`, `TooSlow`, or `BadAnswer` where the body is larger than `max_body`.
        """
        with self.stream(method, path, headers=headers, body=body) as answer:
            found = bytearray()
            while chunk := answer.read():
                found += chunk
                if len(found) > max_body:
                    raise BadAnswer(f"{path}: expected at most {max_body} bytes; more came")
            return Answer(answer.status, answer.headers, bytes(found))

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        deadline_s: float | None = None,
    ) -> Iterator[Streamed]:
        """Send a request and hand out its answer; `deadline_s` bounds the whole of it."""
        ends = time.monotonic() + (deadline_s or self._deadline_s)
        response, finished = None, False
        try:
            with _translated():
                response = self._send(method, path, headers or {}, body, ends)
            answer = Streamed(response)
            encoding = answer.headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise BadAnswer(f"{path}: expected plain bytes; got {ascii(encoding)[:40]}")
            yield answer
            finished = not response.will_close and (response.isclosed() or response.length == 0)
        finally:
            if response is not None:  # it may own the socket; and no new request is taken before
                response.close()
            if not finished:
                self.close()

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, ends: float
    ) -> http.client.HTTPResponse:
        connection = self._fresh()
        connection.putrequest(method, self._base + path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        sock = connection.sock
        gap_s = self._gap_s

        def timed(s: socket.socket, *args: Any, **kw: Any) -> http.client.HTTPResponse:
            response = http.client.HTTPResponse(s, *args, **kw)
            response.fp.close()
            response.fp = io.BufferedReader(_TimedReader(sock, gap_s, ends), 1 << 16)
            return response

        connection.response_class = timed  # type: ignore[assignment]  # any callable serves
        return connection.getresponse()

    def _fresh(self) -> http.client.HTTPConnection:
        """Return a connection that the server has not closed while it was idle."""
        if self._connection and (sock := self._connection.sock):
            if not select.select([sock], [], [], 0)[0]:
                sock.settimeout(self._gap_s)
                return self._connection
            self.close()
        self._connection = self._opened()
        if self._receive_buffer:
            self._connection.connect()
            wanted = (socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            self._connection.sock.setsockopt(*wanted)
        return self._connection

    def _opened(self) -> http.client.HTTPConnection:
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._gap_s)
        context = ssl.create_default_context(cafile=self._ca_file)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self._gap_s, context=context
        )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError as e:
        raise TooSlow("the server took too long to answer") from e
    except http.client.IncompleteRead as e:
        raise Unreachable("the answer broke off") from e
    except http.client.HTTPException as e:
        raise BadAnswer(f"the server's answer is not HTTP: {ascii(str(e))[:120]}") from e
    except (OSError, ValueError) as e:
        raise Unreachable(f"no connection to the server: {e}") from e

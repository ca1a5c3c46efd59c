"""One HTTP connection to the server, kept open between requests, that always ends on time.

It is the standard library's client, which costs a third of the memory of a pool of connections.
Added to it: a total deadline over headers and body (a read timeout alone lets a server drip one
byte now and then for ever), no redirects, no proxies but the owner's, no inflating, and a limit on
what is read into memory. What is asked, and what an answer means, is the caller's.

A connection that was idle may be forgotten by what lies on the way (a NAT, a firewall), which then
drops all that is sent on it without a word. So none is kept for longer than `MAX_IDLE_S`; a GET or
HEAD that gets no answer on one that was kept is sent again at once on a fresh one; and where that
is answered, connections are kept for less from then on.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pilotwave_agent.net.authorities import (
    ASKED,
    ClientCert,
    asks_for_certificate,
    check_pin,
    not_known,
    tls_context,
)
from pilotwave_agent.settings.proxies import DIRECT, NoWay, Proxies, connect, wants_credentials
from pilotwave_protocol.errors import PilotwaveError

GAP_S = 10.0
DEADLINE_S = 30.0
MAX_BODY = 64 << 10
# below the four minutes after which large clouds' balancers forget; home routers keep for longer
MAX_IDLE_S = 230.0
LEAST_IDLE_S = 1.0
LEARNT_FOR_S = 6 * 3600.0
_REPEATABLE = ("GET", "HEAD")


class Unreachable(PilotwaveError):
    """The server cannot be reached, or its answer broke off."""

    code = "unreachable"


class TooSlow(Unreachable):
    """The server takes longer than the deadline."""

    code = "too_slow"


class BadAnswer(PilotwaveError):
    """The server answered something that no Pilotwave server answers."""

    code = "bad_answer"


class TooLong(BadAnswer):
    """The answer is longer than what it was asked for can be."""

    code = "too_long"


@dataclass(frozen=True)
class HttpAnswer:
    """A whole answer. Header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TimedReader(io.RawIOBase):
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
        client: ClientCert | None = None,
        gap_s: float = GAP_S,
        deadline_s: float = DEADLINE_S,
        receive_buffer: int = 0,
        proxies: Proxies = DIRECT,
        pin: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`base_url` may carry a path; `pin` names the key that the server has to show, whoever
        vouches for it; `ca_file` (PEM) replaces the system's roots, `client` is
        shown to a server that asks for a certificate.

        `receive_buffer` bytes are all that the system takes ahead of the reader (0: its own choice,
        megabytes), so that a reader who takes its time slows the line itself.
        """
        found = urlsplit(base_url)
        self._base = found.path.rstrip("/")
        self._tls = found.scheme == "https"
        self._host, self._port = found.hostname or "", found.port
        self._ca_file, self._client, self._pin = ca_file, client, pin
        self._gap_s, self._deadline_s = gap_s, deadline_s
        self._receive_buffer = receive_buffer
        self._proxy = proxies.to(found.scheme, self._host, self._port)
        self._connection: http.client.HTTPConnection | None = None
        self._clock, self._used_at = clock, 0.0
        self._idle = Idle(clock)

    @property
    def kept(self) -> bool:
        """Whether the next request goes over a connection that an earlier one left open."""
        return self._connection is not None and self._connection.sock is not None

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
        deadline_s: float | None = None,
    ) -> HttpAnswer:
        """Return the whole answer, whatever its status.

        Raises `Unreachable`, `TooSlow`, `BadAnswer`, or its kind `TooLong` above `max_body` bytes.
        """
        with self.stream(method, path, headers=headers, body=body, deadline_s=deadline_s) as answer:
            found = bytearray()
            while chunk := answer.read():
                found += chunk
                if len(found) > max_body:
                    raise TooLong(f"{path}: expected at most {max_body} bytes; more came")
            return HttpAnswer(answer.status, answer.headers, bytes(found))

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
        response, handed_out = None, False
        try:
            with _translated(self._client):
                response = self._send(method, path, headers or {}, body, ends)
            answer = Streamed(response)
            encoding = answer.headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise BadAnswer(f"{path}: expected plain bytes; got {ascii(encoding)[:40]}")
            if self._proxy and answer.status == 407:
                raise Unreachable(wants_credentials(self._proxy))
            handed_out = True
            yield answer
        finally:
            keep = handed_out and response is not None and _is_read(response)
            if response is not None:  # it may own the socket; and no new request is taken before
                response.close()
            self._used_at = self._clock()
            if not keep:
                self.close()

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, ends: float
    ) -> http.client.HTTPResponse:
        connection = self._ready(ends)
        idle_s = self._clock() - self._used_at if connection is self._connection else None
        self._connection = connection
        try:
            response = self._ask(connection, method, path, headers, body, ends)
        except (OSError, http.client.HTTPException) as e:
            self.close()
            if idle_s is None:
                raise
            silent = isinstance(e, TimeoutError)
            if silent and idle_s >= LEAST_IDLE_S:
                self._idle.suspect(idle_s)
            if method not in _REPEATABLE or (silent and idle_s < LEAST_IDLE_S):
                raise
            self._connection = self._opened(ends)
            response = self._ask(self._connection, method, path, headers, body, ends)
        self._idle.answered()
        return response

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        ends: float,
    ) -> http.client.HTTPResponse:
        self._put(connection, method, path)
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
            response.fp = io.BufferedReader(TimedReader(sock, gap_s, ends), 1 << 16)
            return response

        connection.response_class = timed  # type: ignore[assignment]  # any callable serves
        return connection.getresponse()

    def _put(self, connection: http.client.HTTPConnection, method: str, path: str) -> None:
        """Begin the request; a proxy of a plain server is asked for the whole URL."""
        path = self._base + path
        if self._proxy is None or self._tls:
            connection.putrequest(method, path, skip_accept_encoding=True)
            return
        host = f"[{self._host}]" if ":" in self._host else self._host
        place = host if self._port is None else f"{host}:{self._port}"
        whole = f"http://{place}{path}"
        connection.putrequest(method, whole, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", place)
        for name, value in self._proxy.headers.items():
            connection.putheader(name, value)

    def _ready(self, ends: float) -> http.client.HTTPConnection:
        """Return the connection that was kept, unless it is too old or closed at the other end."""
        if self._connection and (sock := self._connection.sock):
            old = self._clock() - self._used_at > self._idle.most_s
            if not old and not select.select([sock], [], [], 0)[0]:
                sock.settimeout(self._gap_s)
                return self._connection
            self.close()
        return self._opened(ends)

    def _opened(self, ends: float) -> http.client.HTTPConnection:
        connection = self._unconnected()
        if self._proxy and self._tls:
            to = self._host, self._port or 443
            plain = connect(self._proxy, *to, gap_s=self._gap_s, ends=ends)
            try:
                connection.sock = self._context().wrap_socket(plain, server_hostname=self._host)
            except BaseException:
                plain.close()
                raise
        elif self._receive_buffer or self._pin:
            connection.connect()
        if self._pin:
            check_pin(connection.sock, self._pin)
        if self._receive_buffer:
            wanted = (socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            connection.sock.setsockopt(*wanted)
        return connection

    def _unconnected(self) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._gap_s, context=self._context()
            )
        if self._proxy:
            place = self._proxy.host, self._proxy.port
            return http.client.HTTPConnection(*place, timeout=self._gap_s)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._gap_s)

    def _context(self) -> ssl.SSLContext:
        return tls_context(self._ca_file, self._client, pinned=bool(self._pin))


class Idle:
    """For how long a connection may be idle on this path, as far as it is known."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._most_s, self._until = MAX_IDLE_S, 0.0
        self._suspect_s: float | None = None

    @property
    def most_s(self) -> float:
        """The longest time for which one is kept; what was learnt holds for some hours."""
        return self._most_s if self._clock() < self._until else MAX_IDLE_S

    def suspect(self, idle_s: float) -> None:
        """Nothing came back on a connection that had been idle for so long."""
        self._suspect_s = idle_s

    def answered(self) -> None:
        """The server answers: if a kept connection did not bring that about, it was forgotten."""
        if self._suspect_s is not None:
            self._most_s = max(min(self._suspect_s / 2, self.most_s), LEAST_IDLE_S)
            self._until = self._clock() + LEARNT_FOR_S
        self._suspect_s = None


def _is_read(response: http.client.HTTPResponse) -> bool:
    """Say whether all of an answer was read, so that another request may follow."""
    left = response.length  # None: the answer's chunks say where it ends
    return not response.will_close and (left == 0 or (left is None and response.isclosed()))


@contextmanager
def _translated(client: ClientCert | None = None) -> Iterator[None]:
    """Raise what goes wrong inside as one of the errors above. A server may end the connection
    without a word when it does not know the certificate `client`."""
    maybe = "" if client is None else not_known(client)
    try:
        yield
    except TimeoutError as e:
        raise TooSlow("the server took too long to answer") from e
    except http.client.IncompleteRead as e:
        raise Unreachable("the answer broke off") from e
    except http.client.RemoteDisconnected as e:
        raise Unreachable(f"the server closed the connection without an answer{maybe}") from e
    except http.client.HTTPException as e:
        raise BadAnswer(f"the server's answer is not HTTP: {ascii(str(e))[:120]}") from e
    except NoWay as e:
        raise Unreachable(str(e)) from e
    except ssl.SSLError as e:
        hung_up = maybe if isinstance(e, ssl.SSLEOFError) else ""
        words = ASKED if asks_for_certificate(e) else f"no connection to the server: {e}{hung_up}"
        raise Unreachable(words) from e
    except (OSError, ValueError) as e:
        hung_up = maybe if isinstance(e, ConnectionError) else ""
        raise Unreachable(f"no connection to the server: {e}{hung_up}") from e

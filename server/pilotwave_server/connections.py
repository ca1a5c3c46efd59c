"""One HTTP connection, with limits on what may come before its request is whole.

uvicorn has three limits of its own: the idle time of a connection that was answered, the backlog,
and how much unfinished head its other parser (h11) keeps. With httptools, which answers polls twice
as fast, a head has no limit and no deadline, and `limit_concurrency` turns everybody away once a
stranger's silent connections fill the server. So here: heads and trailers have a size and a
deadline, a connection that waits for its request gives way to a newer one, per address and in all
(`crowds.py`), and a body that nobody reads any more ends soon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pilotwave_server.crowds import Crowd, Crowds
from pilotwave_server.errors import Forbidden, ServerError, Unavailable
from pilotwave_server.problems import MEDIA_TYPE, error_body

MAX_HEAD = 32 * 1024
MAX_HEADERS = 100
MAX_PIPELINED = 32
# Of a body that is not read: so much is passed over, that the sender may come to read its answer.
MAX_UNREAD = 4 * 1024 * 1024
# What chunks may need beside their bytes: sizes, ends of lines, extensions, trailers.
MAX_FRAMING = 64 * 1024
FRAMING_PER_BYTE = 16

CERTIFICATE = (
    "this server answers devices that show a client certificate by its authority: give the device "
    "one (client_cert and client_key in agent.toml)"
)
Certified = Callable[[str], bool]

IDLE, HEAD, BODY = range(3)


class HeadTooLarge(ServerError):
    """The request line and headers are larger than any client of ours needs."""

    status: ClassVar[int] = 431
    code: ClassVar[str] = "head_too_large"
    title: ClassVar[str] = "The request's headers are too large"


class NotHttp(ServerError):
    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"
    title: ClassVar[str] = "The request is not HTTP as it is written down"


class NoClientCertificate(Forbidden):
    """A device came without a certificate by the authority that this server asks for."""

    code: ClassVar[str] = "client_certificate_required"


class TooManyConnections(Unavailable):
    """As many connections as this process, or one address, may have."""

    code: ClassVar[str] = "too_many_connections"


class Connection(HttpToolsProtocol):
    """Between `phase` IDLE and the end of its request, a connection waits in its `crowd`."""

    crowds: Crowds
    crowd: Crowd
    certified: Certified | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.phase = IDLE
        self.answered = False
        self._refused: ServerError | None = None
        self._head = self._body = 0
        if not self.crowds.let_in(self):
            self.refuse(TooManyConnections("too many connections: try again soon"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.crowds.left(self)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self.crowds.left(self)
        super().handle_websocket_upgrade()

    # --- what came

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._head += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return
        except httptools.HttpParserError:
            self.refuse(self._refused or NotHttp("this is not an HTTP/1.1 request"))
            return
        if self.phase == HEAD and self._head > MAX_HEAD:
            self.refuse(too_large())
        elif self.phase == BODY:
            self._check_unread()

    def _upgrade(self) -> None:
        if self._should_upgrade():
            self.handle_websocket_upgrade()
        else:
            self._unsupported_upgrade_warning()

    def _check_unread(self) -> None:
        """End a connection whose body is framing without end, or is read by nobody any more."""
        if self._head - self._body > MAX_FRAMING + FRAMING_PER_BYTE * self._body:
            self.transport.abort()
        elif self._head > MAX_UNREAD and self._nothing_to_answer():
            self.transport.close()

    # --- the parser's calls

    def on_message_begin(self) -> None:
        self.phase = HEAD
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase == HEAD:  # trailers mean nothing to any route
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.headers) > MAX_HEADERS or (self._head > MAX_HEAD and self._is_large()):
            self._stop(too_large())
        if len(self.pipeline) >= MAX_PIPELINED:
            self._stop(NotHttp(f"expected at most {MAX_PIPELINED} requests ahead of their answers"))
        if self._lacks_certificate():
            self._stop(NoClientCertificate(CERTIFICATE))
        self.phase = BODY
        self._head = self._body = 0
        super().on_headers_complete()

    def _lacks_certificate(self) -> bool:
        """Whether a device's path was asked for on a connection that showed no certificate. One by
        another authority did not get as far."""
        if self.certified is None:
            return False
        path = unquote(httptools.parse_url(self.url).path.decode("ascii", "replace"))
        if not self.certified(path):
            return False
        tls = self.transport.get_extra_info("ssl_object")
        return tls is None or not tls.getpeercert()

    def _is_large(self) -> bool:
        """Whether the head alone is large: what was fed may hold a body, or further requests."""
        size = sum(len(name) + len(value) for name, value in self.headers)
        return size + len(self.url) > MAX_HEAD

    def _stop(self, error: ServerError) -> None:
        self._refused = error
        raise error

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.phase = IDLE
        self._head = 0
        super().on_message_complete()
        if self._nothing_to_answer():
            self.crowds.waits(self)
        else:
            self.crowds.works(self)

    # --- the answers

    def on_response_complete(self) -> None:
        """As uvicorn's, but the crowds' one timer takes the place of one for each answer."""
        self.answered = True
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.crowds.waits(self)

    def pause_writing(self) -> None:
        self.crowds.stalls(self)
        super().pause_writing()

    def resume_writing(self) -> None:
        self.crowds.flows(self)
        super().resume_writing()

    def _nothing_to_answer(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None before the first
        return cycle is None or cycle.response_complete

    # --- the end

    @property
    def is_idle(self) -> bool:
        """Whether it was answered and says nothing."""
        return self.answered and self.phase == IDLE

    @property
    def is_read(self) -> bool:
        """Whether somebody reads its body, with a deadline of their own."""
        return self.phase == BODY and not self._nothing_to_answer()

    @property
    def may_give_way(self) -> bool:
        """Whether it may be closed for a newer one: not while somebody known sends a body."""
        return not self.is_read or not self.scope.get("known")

    def refuse(self, error: ServerError) -> None:
        """Say why, and close. What of the request has not come yet is not waited for."""
        if self._nothing_to_answer():
            self.transport.write(refusal(error))
        self.transport.close()

    def give_way(self) -> None:
        """Close without a word: whoever is there has not asked anything yet."""
        self.transport.abort()


class Connections:
    """Makes the connections of a server process (uvicorn's `http` setting). `certified`
    says which paths are for clients with a certificate; None: nobody needs one."""

    def __init__(self, crowds: Crowds, certified: Certified | None = None) -> None:
        self.crowds = crowds
        self.certified = certified

    def __call__(self, *args: Any, **given: Any) -> Connection:
        made = Connection(*args, **given)
        made.crowds = self.crowds
        made.certified = self.certified
        return made


def too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"expected a request line and headers of at most {MAX_HEAD} bytes "
        f"and {MAX_HEADERS} headers in all"
    )


def refusal(error: ServerError) -> bytes:
    """An error as a whole HTTP answer that ends its connection."""
    body = error_body(error)
    headers = {
        **error.headers,
        "content-type": MEDIA_TYPE,
        "content-length": str(len(body)),
        "connection": "close",
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

"""What stands before every route but the hot ones: who may send a body, limits, strict JSON, the
count.

Plain ASGI, because it must see the body before a framework has read it.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pilotwave_server.errors import Invalid, ServerError, TooLarge
from pilotwave_server.logs import HEADER, begin_request
from pilotwave_server.metrics import Metrics
from pilotwave_server.pacing import Pacing
from pilotwave_server.problems import EarlyProblem
from pilotwave_server.strangers import (
    MAX_BYTES,
    OPEN,
    has_body,
    without_body,
    without_escapes,
)
from pilotwave_server.strictbody import read_strict

# A client that still sends does not see an answer, so a body a little too large is read to its end.
DRAIN = 16
# A body has this long to begin and to end, and besides a second for each so many bytes.
BODY_S = 30.0
LEAST_RATE = 16 * 1024
# What devices read with tokens of their own, or anybody for little.
FOR_DEVICES = ("/blobs/", "/deltas/", "/tuf/", "/device/v1/links/", "/device/v1/may-read/")
PASSWORD = 30.0
REFUSALS = frozenset({400, 401, 403, 404, 408, 413, 422, 429})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class BodyTooLarge(TooLarge):
    code = "body_too_large"


class BodyTooSlow(ServerError):
    """The body did not arrive in time. The connection is closed."""

    status: ClassVar[int] = 408
    code: ClassVar[str] = "body_too_slow"
    title: ClassVar[str] = "The request took too long to arrive"


class BadUrl(Invalid):
    code = "bad_url"


@dataclass(frozen=True)
class BodyRule:
    """Bodies at paths that match `path` may have `max_bytes`; a `raw` one is never read as JSON and
    may take its time, an `open` one may be a stranger's."""

    path: re.Pattern[str]
    max_bytes: int
    raw: bool = False
    open: bool = False


class Edge:
    """Refuses what no route should see, measures what goes through."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_bytes: int,
        rules: list[BodyRule],
        is_known: Callable[[Request], Awaitable[bool]],
        pacing: Pacing,
        behind_proxy: bool,
        refusal: Callable[[Scope, ServerError], Awaitable[Response]],
    ) -> None:
        self._refusal = refusal
        self._behind_proxy = behind_proxy
        self._app = app
        self._metrics = metrics
        self._is_known = is_known
        self._pacing = pacing
        self._rules = [
            BodyRule(OPEN, MAX_BYTES, open=True),
            *rules,
            BodyRule(re.compile(".*", re.DOTALL), max_bytes),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 500
        request = begin_request(header(scope, HEADER) if self._behind_proxy else None)

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (HEADER, request.encode())]
            await send(message)

        try:
            await self._guarded(scope, receive, watch)
        finally:
            self._count(scope, status, time.monotonic() - started)
            if is_paid_for(scope, status):
                self._pacing.refused(scope, units=price(scope, status))

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule = next(rule for rule in self._rules if rule.path.fullmatch(scope["path"]))
        try:
            if not scope["path"].startswith(FOR_DEVICES):
                await self._pacing.wait(scope)
            check_url(scope)
            without_escapes(scope)
            request = Request(scope)
            if has_body(request):
                known = await self._is_known(request)
                scope["known"] = known  # whose body is not cut off for others' (`connections.py`)
                if known or rule.open:
                    receive = await take_body(scope, receive, rule)
                else:
                    receive = without_body(scope, receive)
        except (EarlyProblem, ServerError) as said:
            error = said.error if isinstance(said, EarlyProblem) else said
            await (await self._refusal(scope, error))(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # The template, not the path: else each device would be a series of its own.
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(method, route).observe(seconds)


def is_paid_for(scope: Scope, status: int) -> bool:
    """Whether a request is paid for by its address: a stranger's that was refused, or one of the
    few that strangers may make."""
    if scope.get("known") or scope["path"].startswith(FOR_DEVICES):
        return False
    return status in REFUSALS or OPEN.fullmatch(scope["path"]) is not None


def price(scope: Scope, status: int) -> float:
    """What a request costs, in `pacing`'s units: a password is checked slowly on purpose."""
    wrong = scope["method"] == "POST" and scope["path"] == "/login" and status == 401
    return PASSWORD if wrong else 1.0


def check_url(scope: Scope) -> None:
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise BadUrl("expected a URL without NUL characters")


async def take_body(scope: Scope, receive: Receive, rule: BodyRule) -> Receive:
    """A `receive` that gives the body as far as the rule allows."""
    await check_length(scope, receive, rule)
    receive = counted(receive, rule.max_bytes)
    if not rule.raw:
        receive = timed(receive)
        if is_json(scope):
            receive = await read_strict(receive)
    return receive


async def check_length(scope: Scope, receive: Receive, rule: BodyRule) -> None:
    """Refuse a body that announces to be too large, before it is read."""
    # The HTTP parser has refused a length that is not made of digits.
    announced = int(header(scope, b"content-length") or 0)
    if announced > rule.max_bytes:
        if not rule.open and announced <= rule.max_bytes * DRAIN:
            await drain(receive if rule.raw else timed(receive))
        raise too_large(rule.max_bytes)


def is_json(scope: Scope) -> bool:
    kind = header(scope, b"content-type").partition(b";")[0].strip().lower()
    return kind == b"application/json" or kind.endswith(b"+json")


def header(scope: Scope, name: bytes) -> bytes:
    """The header's value, or b"" where there is none."""
    return next((value for key, value in scope["headers"] if key == name), b"")


def too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"expected a body of at most {limit} bytes", max_bytes=limit)


async def drain(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body"):
            return


def timed(receive: Receive, *, seconds: float = BODY_S) -> Receive:
    """`receive` that ends in a 408 when a body takes too long."""
    ends = time.monotonic() + seconds

    async def receive_in_time() -> Message:
        nonlocal ends
        try:
            left = None if ends == math.inf else ends - time.monotonic()
            message = await asyncio.wait_for(receive(), left)
        except asyncio.TimeoutError:
            raise EarlyProblem(too_slow(seconds)) from None
        ends += len(message.get("body", b"")) / LEAST_RATE
        if message["type"] != "http.request" or not message.get("more_body"):
            ends = math.inf  # what comes next is the end of the connection, whenever that is
        return message

    return receive_in_time


def too_slow(seconds: float) -> BodyTooSlow:
    return BodyTooSlow(
        f"expected the whole body within {seconds:.0f} s, or {LEAST_RATE // 1024} KiB per second",
        headers={"Connection": "close"},
    )


def counted(receive: Receive, limit: int) -> Receive:
    """`receive` that ends in a 413 when a body without a length grows over `limit`."""
    seen = 0

    async def receive_counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise EarlyProblem(too_large(limit))
        return message

    return receive_counted

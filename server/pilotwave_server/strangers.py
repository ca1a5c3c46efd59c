"""Decide whose body is read, before any of it is.

Somebody known (a good operator token, a signed-in browser) may send what the routes take. A
stranger may send a small body to the few paths that are a stranger's business. Any other body of a
stranger stays unread, and its route answers as it answers strangers: it never came with a body.
"""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.types import Receive, Scope

from pilotwave_server.strictbody import again

MAX_BYTES = 16 * 1024
# The rest of the devices' paths either take no body or read their own (`device_api`).
OPEN = re.compile(r"/(?:login(?:/.*)?|logout|language|theme|device/v1/enrol)", re.DOTALL)
COOKIE = b"cookie"
OF_A_BODY = frozenset({b"content-length", b"content-type", b"transfer-encoding"})


def has_body(request: Request) -> bool:
    """Whether bytes of a body may follow the headers."""
    headers = request.headers
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def without_body(scope: Scope, receive: Receive) -> Receive:
    """Make it a request without a body. Returns a `receive` that gives none."""
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name not in OF_A_BODY]
    return again({"type": "http.request", "body": b"", "more_body": False}, receive)


def without_escapes(scope: Scope) -> None:
    """Leave out cookies with escapes: no cookie of ours has any, and Python before 3.13 takes
    quadratic time to read them."""
    headers = scope["headers"]
    if any(name == COOKIE and b"\\" in value for name, value in headers):
        scope["headers"] = [
            (name, _plain_cookies(value) if name == COOKIE else value) for name, value in headers
        ]


def _plain_cookies(value: bytes) -> bytes:
    return b";".join(cookie for cookie in value.split(b";") if b"\\" not in cookie)

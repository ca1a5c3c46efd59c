"""Serve everything under a path, such as `https://host/pilotwave/`, behind a reverse proxy.

The path is that of `page_url`, or else of `public_url`. Inside the server no address has it:
requests lose it on their way in, whether the proxy left it or took it off, and `Location`, cookies
and the links in pages get it on their way out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Header = tuple[bytes, bytes]
_LINK = re.compile(r'((?:href|src|action|formaction|hx-(?:get|post|put|patch|delete))=")/(?!/)')
_LEADS_ON = frozenset({b"location", b"hx-redirect", b"hx-location", b"hx-push-url"})
_COOKIE_PATH = re.compile(rb"(;\s*path=)/([^;]*)", re.IGNORECASE)


def base_path(url: str) -> str:
    """Return the path of a URL without a slash at its end: `/pilotwave`; empty: there is none."""
    return urlsplit(url).path.rstrip("/")


def add_to_links(html: str, base: str) -> str:
    """Return a page whose links to this server lead below `base`."""
    return _LINK.sub(rf"\1{base}/", html) if base else html


def without_base(path: str, base: str) -> str:
    """Return a path as it is inside the server."""
    if base and (path == base or path.startswith(f"{base}/")):
        return path[len(base) :] or "/"
    return path


class BasePath:
    """An ASGI app under a path."""

    def __init__(self, app: ASGIApp, base: str) -> None:
        self._app = app
        self._base = base
        self._raw = base.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": self._with_base(message.get("headers", ()))}
            await send(message)

        await self._app(self._inside(scope), receive, answer)

    def _inside(self, scope: Scope) -> Scope:
        path = without_base(scope["path"], self._base)
        if path is scope["path"]:
            return scope
        found = {**scope, "path": path}
        raw: bytes | None = scope.get("raw_path")
        if raw is not None and raw.startswith(self._raw):
            found["raw_path"] = raw[len(self._raw) :] or b"/"
        return found

    def _with_base(self, headers: Iterable[Header]) -> list[Header]:
        return [(name, self._outside(name.lower(), value)) for name, value in headers]

    def _outside(self, name: bytes, value: bytes) -> bytes:
        if name in _LEADS_ON and value.startswith(b"/") and not value.startswith(b"//"):
            return self._raw + value
        if name == b"set-cookie":
            return _COOKIE_PATH.sub(rb"\1" + self._raw.replace(b"\\", b"") + rb"/\2", value)
        return value

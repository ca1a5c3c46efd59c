"""The routes of devices that are answered before any framework is asked: those that each uses all
the time, and those whose bodies are read only once their sender is known."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

POLL = "/device/v1/directive"
CHECK_IN = "/device/v1/check-in"
DIAGNOSTICS = "/device/v1/diagnostics"
CAPTURES = "/device/v1/captures"
UPDATES = "/device/v1/updates"
MASKED = "/device/v1/masked"
UPDATE_BEGIN = f"{UPDATES}/begin"
UPDATE_PIECES = f"{UPDATES}/pieces"
DECLINES = "/device/v1/declines"


class DevicePaths:
    """Sends requests with these methods and paths to their handlers, everything else to `app`."""

    def __init__(self, app: ASGIApp, handlers: Mapping[tuple[str, str], ASGIApp]) -> None:
        self._app = app
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._app
        if scope["type"] == "http":
            handler = self._handlers.get((scope["method"], scope["path"]), self._app)
        await handler(scope, receive, send)

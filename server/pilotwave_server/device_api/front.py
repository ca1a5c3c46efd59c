"""The routes of devices that are answered before any framework is asked: those that each uses all
the time, and one whose body is read only once its sender is known."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

POLL = "/device/v1/directive"
CHECK_IN = "/device/v1/check-in"
DIAGNOSTICS = "/device/v1/diagnostics"


class DevicePaths:
    """Sends these to their handlers, and everything else to `app`."""

    def __init__(
        self, app: ASGIApp, *, polls: ASGIApp, check_ins: ASGIApp, diagnostics: ASGIApp
    ) -> None:
        self._app = app
        self._polls = polls
        self._check_ins = check_ins
        self._diagnostics = diagnostics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path == POLL and scope["method"] == "GET":
                await self._polls(scope, receive, send)
                return
            if path == CHECK_IN and scope["method"] == "POST":
                await self._check_ins(scope, receive, send)
                return
            if path == DIAGNOSTICS and scope["method"] == "POST":
                await self._diagnostics(scope, receive, send)
                return
        await self._app(scope, receive, send)

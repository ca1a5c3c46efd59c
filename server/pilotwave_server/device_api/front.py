"""The two routes that every device uses all the time, answered before any framework is asked."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

POLL = "/device/v1/directive"
CHECK_IN = "/device/v1/check-in"


class DevicePaths:
    """Sends polls and check-ins to their handlers, and everything else to `app`."""

    def __init__(self, app: ASGIApp, *, polls: ASGIApp, check_ins: ASGIApp) -> None:
        self._app = app
        self._polls = polls
        self._check_ins = check_ins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if path == POLL and scope["method"] == "GET":
                await self._polls(scope, receive, send)
                return
            if path == CHECK_IN and scope["method"] == "POST":
                await self._check_ins(scope, receive, send)
                return
        await self._app(scope, receive, send)

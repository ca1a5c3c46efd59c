"""Errors beside the pages' own routes (no such page, no such method, no database) as pages too.

A browser asks for HTML; programs, devices and everything below the paths of machines get problems.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.types import Scope

from pilotwave_server.dashboard.pages import SECURITY, get_page
from pilotwave_server.deps import get_context
from pilotwave_server.errors import ServerError
from pilotwave_server.problems import MEDIA_TYPE, error_response

MACHINES = (
    "/api/",
    "/device/",
    "/tuf/",
    "/blobs/",
    "/deltas/",
    "/static/",
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
)
Handler = Callable[[Request, Any], Any]


def install(app: FastAPI) -> None:
    """Show problems to browsers as pages. The handlers of problems must be in place."""
    for kind, handler in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, _as_page(handler))


def wants_page(request: Request) -> bool:
    """Whether a person's browser asks for a page of ours."""
    html = "text/html" in request.headers.get("accept", "")
    return html and not request.url.path.startswith(MACHINES)


def _as_page(handler: Handler) -> Handler:
    """`handler`, whose problems are pages for a browser."""

    async def answer(request: Request, error: Exception) -> Response:
        return await _shown(request, await handler(request, error))

    return answer


def refusal(app: FastAPI) -> Callable[[Scope, ServerError], Awaitable[Response]]:
    """What answers a request that was refused before `app` saw it."""

    async def answer(scope: Scope, error: ServerError) -> Response:
        return await _shown(Request({**scope, "app": app}), error_response(error))

    return answer


async def _shown(request: Request, response: Response) -> Response:
    """A problem as the page that says the same, where a browser asks for one."""
    if response.media_type != MEDIA_TYPE or not wants_page(request):
        return response
    page = await _page(request, response)
    for name, value in SECURITY.items():
        page.headers.setdefault(name, value)
    return page


async def _page(request: Request, response: Response) -> Response:
    problem = json.loads(bytes(response.body))
    sentence = "there is no such page" if response.status_code == 404 else problem["detail"]
    kept = [name for name in ("allow", "connection", "retry-after") if name in response.headers]
    headers = {name: response.headers[name] for name in kept}
    try:
        context = get_context(request)
        page = await get_page(request, context, context.clock())
        made: Response = page.render(
            "error.html",
            status=response.status_code,
            code=response.status_code,
            sentence=sentence,
        )
    except Exception:  # whatever broke may break the page as well: say it plainly
        made = PlainTextResponse(f"{problem['title']}: {sentence}\n", response.status_code)
    made.headers.update(headers)
    return made

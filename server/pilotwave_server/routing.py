"""Where the operator API stands, how a slice makes its router, and how a route's session ends.

A session ends in the thread that ran the route's function. FastAPI would end it later, after its
turn for another thread; requests that hold a connection and wait for a thread, and requests that
hold a thread and wait for a connection, would then wait for each other for ever.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from pilotwave_server.context import context_of
from pilotwave_server.db import in_transaction
from pilotwave_server.errors import Unauthorised
from pilotwave_server.idempotency.service import HEADER, once
from pilotwave_server.strictroute import (
    check_no_body,
    check_query,
    query_names,
    says_who_asks,
    with_optional_body,
)

API = "/api/v1"


@dataclass(frozen=True)
class TokenCheck:
    """`check(token)` raises Unauthorised for a token that is not good (`operators`)."""

    check: Callable[[str], object]


class SessionRoute(APIRoute):
    """A route whose function may ask for sessions (`deps.ReadSession`, `deps.WriteSession`)."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if not inspect.iscoroutinefunction(endpoint):
            endpoint = ending_sessions(endpoint)
        super().__init__(path, endpoint, **options)


class StrictRoute(SessionRoute):
    """A route of the operator API: it refuses what it would otherwise pass over in silence, and a
    POST whose body needs nothing may be sent without one."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if not inspect.iscoroutinefunction(endpoint):
            endpoint = ending_sessions(endpoint)
        if "POST" in (options.get("methods") or ()):
            endpoint = with_optional_body(endpoint)
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = query_names(self.dependant)
        takes_body = self.body_field is not None or "requestBody" in (self.openapi_extra or {})

        async def handle_strictly(request: Request) -> Response:
            context = context_of(request)
            context.api_limits.check(request)
            if says_who_asks(request):  # a stranger is told to sign in, and nothing else
                check_query(request, known)
                if not takes_body:
                    await check_no_body(request)
            token_id = await known_token(request) if wants_once(request) else None
            if token_id is None:
                return await handle(request)
            return await once(request, handle, context, token_id)

        return handle_strictly


def wants_once(request: Request) -> bool:
    """Whether a request is to be done once, however often it is sent."""
    return request.method == "POST" and HEADER in request.headers


async def known_token(request: Request) -> str | None:
    """Whose token a request has; None where it has none that is good: the route says so."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        await run_in_threadpool(context_of(request).get(TokenCheck).check, token.strip())
    except (Unauthorised, SQLAlchemyError):
        return None
    return hashlib.sha256(token.strip().encode()).hexdigest()


def ending_sessions(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """`endpoint` with each session among its arguments committed and closed when it returns."""
    if hasattr(endpoint, "ends_sessions"):
        return endpoint

    @functools.wraps(endpoint)
    def run(**values: Any) -> Any:
        with ExitStack() as stack:
            for value in values.values():
                if isinstance(value, Session):
                    stack.enter_context(in_transaction(value))
            return endpoint(**values)

    run.ends_sessions = True  # type: ignore[attr-defined]  # a router that is included wraps again
    return run


def need_session_route(request: Request) -> None:
    """TypeError for a route that would never commit its session. The first request tells."""
    route = request.scope.get("route")
    if not isinstance(route, SessionRoute) or not hasattr(route.endpoint, "ends_sessions"):
        raise TypeError("a session needs a plain `def` on a router made by `routing`")


def api_router(*, tag: str, prefix: str = "") -> APIRouter:
    """A router below /api/v1 whose routes are listed under `tag` in the OpenAPI document."""
    return APIRouter(prefix=f"{API}{prefix}", tags=[tag], route_class=StrictRoute)


def root_router(*, tag: str, prefix: str = "") -> APIRouter:
    """A router that stands beside the operator API."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=SessionRoute)

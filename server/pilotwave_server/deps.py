"""What a route may ask for by its signature: who is calling, a session, the time, the context.

    def pin(device: DeviceName, operator: Operator, session: WriteSession, now: Now, …) -> PinView

A WriteSession commits when the function returns, before its answer is sent; an exception rolls it
back. A ReadSession refuses to write. Both take a router made by `routing`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from pilotwave_server.context import Context
from pilotwave_server.operators.authenticate import TokenMissing
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.operators.service import RoleForbids
from pilotwave_server.routing import need_session_route


def get_context(request: Request) -> Context:
    return cast(Context, request.app.state.pilotwave)


Ctx = Annotated[Context, Depends(get_context)]


def get_now(context: Ctx) -> datetime:
    return context.clock()


Now = Annotated[datetime, Depends(get_now)]


def read_session(request: Request, context: Ctx) -> Session:
    need_session_route(request)
    return context.db.read_session()


def write_session(request: Request, context: Ctx) -> Session:
    need_session_route(request)
    return context.db.write_session()


ReadSession = Annotated[Session, Depends(read_session)]
WriteSession = Annotated[Session, Depends(write_session)]

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="operatorToken",
    bearerFormat="pw_<id>_<secret>",
    description="An operator token, made by `pilotwave-server init`, `new-token` or POST /tokens.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def get_actor(context: Ctx, credentials: Credentials, now: Now) -> Actor:
    """Who is calling, or a 401 that says what is wrong with the token."""
    if credentials is None:
        raise TokenMissing("send an operator token as `Authorization: Bearer pw_…`")
    known = context.operators.recall(credentials.credentials, now=now)
    if known is not None:
        return known
    return await run_in_threadpool(context.operators.authenticate, credentials.credentials, now=now)


def require(role: Role) -> Callable[[Actor], Awaitable[Actor]]:
    async def check(actor: Annotated[Actor, Depends(get_actor)]) -> Actor:
        if not actor.role.covers(role):
            raise RoleForbids(
                f"this needs the role {role.value}; the token {actor.name} is {actor.role.value}",
                needed=role.value,
            )
        return actor

    return check


Viewer = Annotated[Actor, Depends(require(Role.VIEWER))]
Publisher = Annotated[Actor, Depends(require(Role.PUBLISHER))]
Operator = Annotated[Actor, Depends(require(Role.OPERATOR))]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]

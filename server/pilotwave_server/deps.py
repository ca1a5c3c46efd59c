"""What a route may ask for by its signature: who is calling, a session, the time, the context.

    def pause(rollout: RolloutName, operator: OperatorOfRollout, session: WriteSession, …) -> …

The caller's type says the role and what is changed, by which a token of limited scope is judged.
`Operator` and the like change what belongs to the whole fleet: a limited token may only read there.
`OperatorOfDevice` and `OperatorOfRollout` stand in their slices (`permissions.py`).

A WriteSession commits when the function returns, before its answer is sent; an exception rolls it
back. A ReadSession refuses to write. Both take a router made by `routing`.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Annotated, cast

from fastapi import Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from pilotwave_server.context import Context
from pilotwave_server.errors import Forbidden, Unauthorised
from pilotwave_server.operators.authenticate import OperatorTokens, TokenMissing
from pilotwave_server.operators.roles import Actor, Role
from pilotwave_server.operators.service import check_role
from pilotwave_server.operators.sessions import COOKIE, PersonSessions, SignedIn
from pilotwave_server.routing import need_session_route
from pilotwave_server.scope import (
    BYTES,
    FLEET,
    GROUP,
    IN_BODY,
    MODEL,
    NOTHING,
    Resource,
    check_scope,
)

SAFE = ("GET", "HEAD", "OPTIONS")


class ForgedRequest(Forbidden):
    """A change without the session's own token: another site may have sent it."""

    code = "forged_request"


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
    description="An operator token, made when the server is set up, by `pilotwave-server new-token "
    "--name NAME` or by POST /tokens.",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def identify(request: Request, context: Ctx, credentials: Credentials, now: Now) -> Actor:
    """Who is calling, whatever they may do, or a 401 that says what is wrong.

    A browser may come with a session's cookie instead of a token; to change anything it must also
    send the session's `X-CSRF-Token`, which no other site knows.
    """
    if credentials is None:
        signed_in = await get_signed_in(request, context, now)
        if signed_in is None or signed_in.half_way:
            raise TokenMissing("send an operator token as `Authorization: Bearer pw_…`")
        if request.method not in SAFE:
            check_csrf(signed_in, request.headers.get("x-csrf-token", ""))
        return signed_in.actor
    actor = context.get(OperatorTokens).recall(credentials.credentials, now=now)
    if actor is None:
        actor = await run_in_threadpool(
            context.get(OperatorTokens).authenticate, credentials.credentials, now=now
        )
    return actor


async def get_actor(request: Request, context: Ctx, credentials: Credentials, now: Now) -> Actor:
    """Who is calling, for what declares no caller: a limited token may only read there."""
    actor = await identify(request, context, credentials, now)
    if actor.limited and request.method not in SAFE:
        check_scope(actor, NOTHING)
    return actor


async def is_known(request: Request, context: Context) -> bool:
    """Whether the sender of a request is somebody, whatever they may do."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    now = context.clock()
    try:
        if scheme.lower() == "bearer":
            known = context.get(OperatorTokens).recall(token.strip(), now=now)
            return known is not None or bool(
                await run_in_threadpool(
                    context.get(OperatorTokens).authenticate, token.strip(), now=now
                )
            )
        signed_in = await get_signed_in(request, context, now)
    except (Unauthorised, SQLAlchemyError):
        return False  # the route says the same with its own words
    return signed_in is not None and not signed_in.half_way


async def get_signed_in(request: Request, context: Ctx, now: Now) -> SignedIn | None:
    """Whose browser this is, by its cookie; None for a stranger's."""
    cookie = request.cookies.get(COOKIE)
    if not cookie:
        return None
    known = context.get(PersonSessions).recall(cookie, now=now)
    return known or await run_in_threadpool(context.get(PersonSessions).find, cookie, now=now)


def check_csrf(signed_in: SignedIn, sent: str) -> None:
    """ForgedRequest unless the request carries the session's own token."""
    if not hmac.compare_digest(signed_in.csrf.encode(), sent.encode()):
        raise ForgedRequest(
            "this request did not come from a page of this server: reload the page and try again"
        )


async def _no_store(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


NO_STORE = Depends(_no_store)
"""Among a route's `dependencies`: no cache keeps its answer, as a secret stands in it."""


def require(role: Role, resource: Resource = FLEET) -> Callable[..., Awaitable[Actor]]:
    """A dependency: somebody of this role, whose limits take in what the route changes."""

    async def check(
        request: Request, context: Ctx, actor: Annotated[Actor, Depends(identify)]
    ) -> Actor:
        if actor.limited and request.method not in SAFE:
            await run_in_threadpool(check_limits, context, actor, resource, request.path_params)
        check_role(actor, role)
        return actor

    check.declares = (role, resource)  # type: ignore[attr-defined]  # a test lists every route's
    return check


def check_limits(
    context: Context, actor: Actor, resource: Resource, names: Mapping[str, str]
) -> None:
    """ScopeForbids unless what the path names is within the token's limits."""
    if resource.touched is None:
        return
    with context.db.read() as session:
        touched = resource.touched(session, names)
    check_scope(actor, touched)


Viewer = Annotated[Actor, Depends(require(Role.VIEWER))]
Publisher = Annotated[Actor, Depends(require(Role.PUBLISHER))]
Operator = Annotated[Actor, Depends(require(Role.OPERATOR))]
Admin = Annotated[Actor, Depends(require(Role.ADMIN))]
PublisherOfModel = Annotated[Actor, Depends(require(Role.PUBLISHER, MODEL))]
OperatorOfModel = Annotated[Actor, Depends(require(Role.OPERATOR, MODEL))]
OperatorOfGroup = Annotated[Actor, Depends(require(Role.OPERATOR, GROUP))]
"""Of a model in a group: who is in the group is the whole fleet's matter."""
PublisherOfBytes = Annotated[Actor, Depends(require(Role.PUBLISHER, BYTES))]
OperatorInBody = Annotated[Actor, Depends(require(Role.OPERATOR, IN_BODY))]
"""The body names what is changed, so the route itself calls `check_scope`."""

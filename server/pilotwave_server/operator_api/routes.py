"""Operator tokens over HTTP."""

from __future__ import annotations

from pilotwave_server.db import after_commit
from pilotwave_server.deps import NO_STORE, Admin, Ctx, Now, ReadSession, Viewer, WriteSession
from pilotwave_server.operator_api.views import NewTokenView, TokenRequest, TokenView, WhoAmI
from pilotwave_server.operators import service
from pilotwave_server.operators.authenticate import OperatorTokens
from pilotwave_server.operators.tables import OperatorTokenRow
from pilotwave_server.paging import BadCursor, CountedPage, Paging, count_rows
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="operators")


@router.get("/whoami", summary="Who the token belongs to and what it may do")
def whoami(viewer: Viewer) -> WhoAmI:
    return WhoAmI(
        id=viewer.token_id,
        kind=viewer.kind,
        name=viewer.name,
        role=viewer.role,
        models=None if viewer.models is None else sorted(viewer.models),
        groups=None if viewer.groups is None else sorted(viewer.groups),
    )


@router.get("/tokens", summary="List operator tokens", responses=responses(BadCursor))
def list_tokens(admin: Admin, session: ReadSession, page: Paging) -> CountedPage[TokenView]:
    """All tokens, including revoked ones, without their secrets."""
    rows, cursor = service.list_tokens(session, page=page)
    return CountedPage(
        items=[TokenView.model_validate(row) for row in rows],
        next_cursor=cursor,
        total=count_rows(session, OperatorTokenRow),
    )


@router.post(
    "/tokens",
    status_code=201,
    summary="Create an operator token",
    responses=responses(service.TokenNameTaken, service.ExpiryPassed, service.ScopeTooWide),
    dependencies=[NO_STORE],
)
def create_token(admin: Admin, session: WriteSession, now: Now, body: TokenRequest) -> NewTokenView:
    """The response contains the token itself, which is shown only once."""
    issued = service.issue(
        session,
        name=body.name,
        role=body.role,
        actor=str(admin),
        now=now,
        expires_at=body.expires_at,
        models=body.models,
        groups=body.groups,
    )
    shown = TokenView.model_validate(issued.row)
    return NewTokenView(**shown.model_dump(), token=issued.plaintext)


@router.delete(
    "/tokens/{token_id}",
    status_code=204,
    summary="Revoke an operator token",
    responses=responses(service.TokenNotFound, service.LastAdmin),
)
def revoke_token(
    token_id: str, admin: Admin, session: WriteSession, now: Now, context: Ctx
) -> None:
    """It stops working at once in this server process, and within seconds in the others."""
    service.revoke(session, token_id=token_id, actor=str(admin), now=now)
    after_commit(session, lambda: context.get(OperatorTokens).forget(token_id))

"""`/api/v1/captures`: list captured cases, take them as they are sealed, delete them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Path, Query, Response
from pydantic import Field

from pilotwave_server.captures import service
from pilotwave_server.captures.service import CaseFilter, CaseUnknown
from pilotwave_server.deps import Now, Operator, ReadSession, WriteSession
from pilotwave_server.errors import Invalid
from pilotwave_server.fields import ApiReply
from pilotwave_server.paging import BadCursor, Page, Paging
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="devices")
Number = Annotated[int, Path(ge=1, le=2**62)]
Name = Annotated[str | None, Query(max_length=64, pattern="^[a-z0-9._-]+$")]


class CaseView(ApiReply):
    id: int
    case_id: str = Field(description="The SHA-256 of the sealed bytes.")
    device: str
    model: str
    version: str
    variant: str
    reason: str = Field(
        description="Why it was captured: `low_score`, `drift`, `overruled`, "
        "`shadow_disagreement`, `uniform`."
    )
    reader: str = Field(description="The public half of the key that opens it.")
    size: int = Field(description="In bytes; at least 4096.")
    captured_at: datetime
    received_at: datetime


class CasesDeleted(ApiReply):
    deleted: int


def which(
    id: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    device: Name = None,
    model: Name = None,
    reason: Name = None,
    reader: Name = None,
) -> CaseFilter:
    return CaseFilter(id, device, model, reason, reader)


Meant = Annotated[CaseFilter, Depends(which)]


@router.get(
    "/captures",
    operation_id="list_captures",
    summary="List captured cases",
    responses=responses(BadCursor),
)
def list_captures(
    operator: Operator, session: ReadSession, page: Paging, meant: Meant
) -> Page[CaseView]:
    """Newest first: what is said of them in the open."""
    rows, cursor = service.list_of(session, meant, page=page)
    return Page(items=[CaseView.model_validate(row) for row in rows], next_cursor=cursor)


@router.get(
    "/captures/{number}",
    operation_id="get_capture",
    summary="Take a captured case",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}, **responses(CaseUnknown)},
)
def get(number: Number, operator: Operator, session: ReadSession) -> Response:
    """The statement that the device signed, and the sealed bytes, which the reader's key opens."""
    return Response(
        service.find(session, number).content,
        media_type="application/octet-stream",
        headers={"Cache-Control": "no-store"},
    )


@router.delete(
    "/captures",
    operation_id="delete_captures",
    summary="Delete captured cases",
    responses=responses(Invalid),
)
def delete(
    operator: Operator,
    session: WriteSession,
    now: Now,
    meant: Meant,
    every: Annotated[bool, Query(alias="all")] = False,
) -> CasesDeleted:
    """Those that the filters name; without any, `all=true` has to say so."""
    if bool(meant.clauses()) is every:
        raise Invalid("say which cases: by id, device, model, reason or reader, or all=true")
    return CasesDeleted(deleted=service.delete_cases(session, meant, actor=str(operator), now=now))

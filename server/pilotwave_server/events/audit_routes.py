"""The audit log over HTTP: to be read only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.concurrency import iterate_in_threadpool

from pilotwave_protocol import strictjson
from pilotwave_server.audit import service
from pilotwave_server.deps import Admin, Ctx, ReadSession, Viewer
from pilotwave_server.fields import ApiReply, Moment
from pilotwave_server.paging import BadCursor, Page, Paging
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="audit")


class AuditEventView(ApiReply):
    id: int
    at: datetime
    actor: str = Field(description="`token/<name>`, `person/<name>`, `device/<name>` or `server`.")
    verb: str = Field(description="What was done, as `device.pin`.")
    object: str = Field(description="What it was done to, as `device/cam-017`.")
    before: dict[str, Any] | None = Field(description="How it looked before.")
    after: dict[str, Any] | None = Field(description="How it looked after.")
    sha256: str = Field(description="The chain's digest up to and with this event.")


class HeadView(ApiReply):
    sha256: str = Field(description="The chain's last digest: note it somewhere else.")
    events: int = Field(description="How many events it covers.")


After = Annotated[int, Query(ge=0, le=2**53, description="Only events behind this number.")]
Filter = Annotated[str | None, Query(min_length=1, max_length=300)]


@router.get("/events", summary="Read the audit log", responses=responses(BadCursor))
def list_events(
    viewer: Viewer,
    session: ReadSession,
    page: Paging,
    object: Filter = None,
    actor: Filter = None,
    verb: Filter = None,
    since: Annotated[Moment | None, Query(description="Only what happened from then on.")] = None,
) -> Page[AuditEventView]:
    """Newest first. Each filter is an exact match."""
    rows, cursor = service.list_events(
        session, page=page, object=object, actor=actor, verb=verb, since=since
    )
    return Page(items=[AuditEventView.model_validate(row) for row in rows], next_cursor=cursor)


@router.get("/events/head", summary="The audit chain's last digest")
def get_head(viewer: Viewer, session: ReadSession) -> HeadView:
    """Keep it to check later that no earlier event was changed."""
    sha256, events = service.head(session)
    return HeadView(sha256=sha256, events=events)


@router.get(
    "/events/export",
    summary="Export the audit log",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}}},
)
async def export(admin: Admin, context: Ctx, after: After = 0) -> StreamingResponse:
    """All events as JSON lines, oldest first. `pilotwave audit verify` checks the export."""

    def lines() -> Iterator[bytes]:
        with context.db.read() as session:
            for event in service.all_events(session, after=after):
                yield strictjson.dumps(event) + b"\n"

    return StreamingResponse(iterate_in_threadpool(lines()), media_type="application/jsonl")

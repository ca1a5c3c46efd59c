"""The audit log over HTTP: to be read only."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import Field

from pilotwave_server.audit import service
from pilotwave_server.deps import ReadSession, Viewer
from pilotwave_server.fields import ApiReply, Moment
from pilotwave_server.paging import BadCursor, Page, Paging
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="audit")


class EventView(ApiReply):
    id: int
    at: datetime
    actor: str = Field(description="`token/<name>`, `device/<name>` or `server`.")
    verb: str = Field(description="What was done, as `device.pin`.")
    object: str = Field(description="What it was done to, as `device/cam-017`.")
    before: dict[str, Any] | None = Field(description="How it looked before.")
    after: dict[str, Any] | None = Field(description="How it looked after.")


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
) -> Page[EventView]:
    """The newest first. Each filter is an exact match."""
    rows, cursor = service.list_events(
        session, page=page, object=object, actor=actor, verb=verb, since=since
    )
    return Page(items=[EventView.model_validate(row) for row in rows], next_cursor=cursor)

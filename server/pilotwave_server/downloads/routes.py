"""Bytes sent, and sites' limits, over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import Field

from pilotwave_server.db import after_commit
from pilotwave_server.deps import Ctx, Now, Operator, ReadSession, Viewer, WriteSession
from pilotwave_server.downloads import service, sites
from pilotwave_server.downloads.limits_watch import LimitsWatch
from pilotwave_server.downloads.tables import SiteLimitRow
from pilotwave_server.fields import ApiReply, ApiRequest, LabelValue
from pilotwave_server.paging import BadCursor, CountedPage, Page, Paging, count_rows
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="downloads")

By = Literal["device", "model", "version", "variant", "rollout", "site"]
Only = Annotated[str | None, Query(min_length=1, max_length=128)]
_KBPS = 10**9
Kbps = Annotated[int | None, Field(ge=8, le=_KBPS, description="Kilobits per second.")]


class SentView(ApiReply):
    device: str | None = None
    model: str | None = None
    version: str | None = None
    variant: str | None = None
    rollout: str | None = Field(None, description="Empty: pins and baselines.")
    site: str | None = Field(None, description="Empty: devices without a label `site`.")
    devices: int = Field(description="How many devices they went to.")
    sent: int = Field(description="Bytes that this server sent: of whole files and of deltas.")
    sent_full: int = Field(description="Of these, bytes of whole files.")
    sent_delta: int = Field(description="Of these, bytes of deltas.")
    saved: int = Field(description="How many bytes more the whole files would have been.")


class SiteLimitView(ApiReply):
    site: str
    max_rate_kbps: int | None = Field(description="All of the site's downloads together.")
    max_device_rate_kbps: int | None = Field(description="Each of its devices.")
    max_downloads: int | None = Field(description="How many at once.")
    set_by: str | None = None
    set_at: datetime | None = None


class SiteLimitRequest(ApiRequest):
    site: LabelValue
    max_rate_kbps: Kbps = None
    max_device_rate_kbps: Kbps = None
    max_downloads: Annotated[int | None, Field(ge=1, le=100_000)] = None


@router.get("/bytes", summary="Bytes sent to devices", responses=responses(BadCursor))
def list_bytes(
    viewer: Viewer,
    session: ReadSession,
    page: Paging,
    by: By = "version",
    device: Only = None,
    model: Only = None,
    version: Only = None,
    rollout: Only = None,
    site: Only = None,
) -> Page[SentView]:
    """Total bytes of files and deltas that this server sent. Bytes served by a site's cache are not
    counted; the last few seconds may be missing."""
    only = {"device": device, "model": model, "version": version, "rollout": rollout, "site": site}
    rows, cursor = service.list_sent(session, by=by, only=only, page=page)
    return Page(items=[_view(row._asdict()) for row in rows], next_cursor=cursor)


def _view(found: dict[str, Any]) -> SentView:
    full, delta, stood_for = (
        int(found.pop(key)) for key in ("sent_full", "sent_delta", "delta_for")
    )
    return SentView(
        **found, sent=full + delta, sent_full=full, sent_delta=delta, saved=stood_for - delta
    )


@router.get("/site-limits", summary="List sites' limits", responses=responses(BadCursor))
def list_site_limits(
    viewer: Viewer, session: ReadSession, page: Paging
) -> CountedPage[SiteLimitView]:
    """By site. A site is the value of the label `site`."""
    rows, cursor = sites.list_limits(session, page=page)
    return CountedPage(
        items=[SiteLimitView.model_validate(row) for row in rows],
        next_cursor=cursor,
        total=count_rows(session, SiteLimitRow),
    )


@router.put("/site-limits", summary="Limit a site's downloads")
def set_site_limit(
    operator: Operator, session: WriteSession, now: Now, context: Ctx, body: SiteLimitRequest
) -> SiteLimitView:
    """Replaces all three limits; those left out are removed. Running downloads follow at once, on
    other servers within seconds."""
    given = body.model_dump(exclude={"site"})
    limit = sites.SiteLimit(**given)
    row = sites.set_limit(session, site=body.site, limit=limit, actor=str(operator), now=now)
    after_commit(session, context.get(LimitsWatch).wake)
    if row is None:
        return SiteLimitView(site=body.site, **given)
    return SiteLimitView.model_validate(row)

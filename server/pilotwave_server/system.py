"""The server about itself: is it well, what does it count, how does the fleet stand."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from pilotwave_server import __version__, migrate
from pilotwave_server.db import fleet_row
from pilotwave_server.deps import Credentials, Ctx, Now, ReadSession, get_actor
from pilotwave_server.fields import ApiReply
from pilotwave_server.metrics import CONTENT_TYPE
from pilotwave_server.operators.authenticate import TokenMissing
from pilotwave_server.problems import DatabaseUnavailable, responses

public = APIRouter(tags=["server"])
METRICS_TEXT: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}


class Health(ApiReply):
    status: str = Field(description="`ok`; anything else is a problem with status 503.")
    version: str = Field(description="The server's version.")
    migration: str = Field(description="The migration that the database is at.")
    revision: int = Field(description="The fleet's revision counter.")


@public.get("/healthz", summary="Is the server well", responses=responses(DatabaseUnavailable))
def healthz(session: ReadSession) -> Health:
    """For load balancers and container health checks; needs no token."""
    migration = migrate.require_head(session)
    revision = fleet_row(session).revision
    return Health(status="ok", version=__version__, migration=migration, revision=revision)


@public.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: METRICS_TEXT, **responses(TokenMissing)},
)
async def metrics(request: Request, context: Ctx, credentials: Credentials, now: Now) -> Response:
    """Needs a viewer's token unless the setting `metrics_open` is on."""
    if not context.settings.metrics_open:
        await get_actor(context, credentials, now)
    content = await run_in_threadpool(context.metrics.render)
    return Response(content, media_type=CONTENT_TYPE)

"""Links for mirrors, and the question that a cache asks before it gives out what it holds.

A link is a path with the device's leave in its query: good for that path alone, for a few minutes,
and only while the device may read what is there. A device hands links to mirrors, which so never
see its token. `may-read` answers for tokens and links alike and touches no database, so a cache can
ask it for every request: who may read is decided here, the bytes lie there.
"""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from pilotwave_server.blobs.access import BlobDenied, BlobTokenMissing, blob_path, check_may_read
from pilotwave_server.blobs.port import BlobStore, StoreBroken
from pilotwave_server.blobs.receiving import in_thread
from pilotwave_server.blobs.routes import Digest
from pilotwave_server.context import Context
from pilotwave_server.deltas.routes import DeltaMissing, DeltaPending, delta_path, find_delta
from pilotwave_server.deps import Ctx
from pilotwave_server.device_api.poll import Polls, RevokedToken
from pilotwave_server.device_api.route_parts import DeviceCredentials
from pilotwave_server.device_api.tokens import BadToken, ExpiredToken
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.fields import ApiReply
from pilotwave_server.problems import responses

log = logging.getLogger(__name__)
router = APIRouter(tags=["device"], prefix="/device/v1")
LIFETIME_S = 300
REFUSALS = responses(BlobTokenMissing, BadToken, ExpiredToken, RevokedToken, BlobDenied)


class LinkAnswer(ApiReply):
    path: str = Field(description="What to ask a mirror for: path and query.")
    expires_in_s: int
    url: str | None = Field(
        default=None,
        description="Where in an object store the blob lies, good for as long; null: it is to be "
        "had from this server alone, or the device's site has limits.",
    )


async def _link(
    context: Context, token: HTTPAuthorizationCredentials | None, path: str, sha256: str
) -> LinkAnswer:
    if token is None:
        raise BlobTokenMissing
    polls = context.get(Polls)
    if not await polls.may_read(token.credentials, sha256):
        raise BlobDenied(sha256)
    link = await polls.link(token.credentials, path, lifetime_s=LIFETIME_S)
    return LinkAnswer(path=f"{path}?link={link}", expires_in_s=LIFETIME_S)


@router.get("/links/blobs/{sha256}", responses=REFUSALS)
async def link_to_blob(
    sha256: Digest, context: Ctx, token: DeviceCredentials, response: Response
) -> LinkAnswer:
    """A link to a blob that the device is told to run, for a mirror or cache; and its URL in the
    object store, for a device whose settings name that."""
    response.headers["Cache-Control"] = "no-store"
    answer = await _link(context, token, blob_path(sha256), sha256)
    site = await context.get(Polls).site_of(token.credentials) if token else ""
    # what goes past this server keeps to no site's limits
    if not context.get(Admission).is_limited(site):
        store = context.get(BlobStore)
        answer.url = await in_thread(store.threads, _direct_url, store=store, sha256=sha256)
    return answer


def _direct_url(store: BlobStore, sha256: str) -> str | None:
    try:
        return store.direct_url(sha256, lifetime_s=LIFETIME_S)
    except StoreBroken as error:
        log.warning("no direct URL can be given out: %s", error)
        return None


@router.get(
    "/links/deltas/{from_sha256}/{to_sha256}",
    responses={**REFUSALS, **responses(DeltaMissing, DeltaPending)},
)
async def link_to_delta(
    from_sha256: Digest,
    to_sha256: Digest,
    context: Ctx,
    token: DeviceCredentials,
    response: Response,
) -> LinkAnswer:
    """A link to the delta from one blob to another, if there is one."""
    response.headers["Cache-Control"] = "no-store"
    answer = await _link(context, token, delta_path(from_sha256, to_sha256), to_sha256)
    await run_in_threadpool(find_delta, context, from_sha256, to_sha256)
    return answer


@router.get("/may-read/blobs/{sha256}", status_code=204, responses=REFUSALS)
async def may_read_blob(sha256: Digest, request: Request, context: Ctx) -> Response:
    """Whether the token (or the link in the query) of this request reads that blob."""
    await check_may_read(context, request, sha256, path=blob_path(sha256))
    return Response(status_code=204, headers={"Cache-Control": "no-store"})


@router.get("/may-read/deltas/{from_sha256}/{to_sha256}", status_code=204, responses=REFUSALS)
async def may_read_delta(
    from_sha256: Digest, to_sha256: Digest, request: Request, context: Ctx
) -> Response:
    """Whether the token (or the link in the query) of this request reads that delta."""
    path = delta_path(from_sha256, to_sha256)
    await check_may_read(context, request, to_sha256, path=path)
    return Response(status_code=204, headers={"Cache-Control": "no-store"})

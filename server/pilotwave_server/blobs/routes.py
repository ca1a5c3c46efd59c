"""HTTP for blobs: what is missing, sending it in pieces, reading it."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request, Response
from starlette.requests import ClientDisconnect

from pilotwave_protocol.manifest import MAX_FILE_SIZE
from pilotwave_server.blobs import service
from pilotwave_server.blobs.access import BlobDenied, BlobTokenMissing, blob_path, check_may_read
from pilotwave_server.blobs.port import (
    BlobBusy,
    BlobMissing,
    BlobStore,
    BlobTooLong,
    DigestMismatch,
    NoSpace,
    OffsetMismatch,
    StoreBroken,
    UploadStalled,
)
from pilotwave_server.blobs.receiving import Blocks, in_thread, receive_into
from pilotwave_server.blobs.sending import blob_response
from pilotwave_server.blobs.views import (
    MissingBlob,
    MissingRequest,
    MissingView,
    UploadView,
)
from pilotwave_server.context import Context
from pilotwave_server.deps import Ctx, PublisherOfBytes
from pilotwave_server.fields import Sha256
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

api = api_router(tag="blobs", prefix="/blobs")
# At the root, where a cache may stand before it.
public = APIRouter(tags=["blobs"])
routers = [api, public]

Digest = Annotated[Sha256, Path(description="The blob's SHA-256.")]
BYTES: dict[str, Any] = {
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
}
BODY: dict[str, Any] = {"requestBody": {"required": True, "content": BYTES}}


@api.post("/missing", responses=responses(service.SizeMismatch, service.BlobPurged))
def missing(body: MissingRequest, publisher: PublisherOfBytes, context: Ctx) -> MissingView:
    """List which of these blobs still have to be uploaded, and from which byte."""
    with context.db.read() as session:
        service.check_not_purged(session, (b.sha256 for b in body.blobs))
    found = service.find_missing(context.get(BlobStore), [(b.sha256, b.size) for b in body.blobs])
    return MissingView(missing=[MissingBlob.model_validate(blob) for blob in found])


def _progress(context: Context, sha256: str) -> UploadView:
    size = context.get(BlobStore).size(sha256)
    if size is not None:
        return UploadView(offset=size, complete=True)
    return UploadView(offset=context.get(BlobStore).partial(sha256), complete=False)


def _begin(context: Context, sha256: str) -> UploadView:
    with context.db.read() as session:
        service.check_not_purged(session, [sha256])
    return _progress(context, sha256)


def _tell(response: Response, view: UploadView) -> UploadView:
    response.headers["Upload-Offset"] = str(view.offset)
    response.headers["Upload-Complete"] = "?1" if view.complete else "?0"
    response.headers["Cache-Control"] = "no-store"
    return view


@api.get("/{sha256}/upload")
def upload_progress(
    sha256: Digest, publisher: PublisherOfBytes, context: Ctx, response: Response
) -> UploadView:
    """Get the progress of an upload."""
    return _tell(response, _progress(context, sha256))


@api.head("/{sha256}/upload")
def upload_progress_headers(
    sha256: Digest, publisher: PublisherOfBytes, context: Ctx, response: Response
) -> None:
    """Get the progress of an upload in the headers Upload-Offset and Upload-Complete."""
    _tell(response, _progress(context, sha256))


@api.patch(
    "/{sha256}/upload",
    responses=responses(
        UploadStalled,
        BlobBusy,
        OffsetMismatch,
        BlobTooLong,
        DigestMismatch,
        StoreBroken,
        NoSpace,
        service.BlobPurged,
    ),
    openapi_extra=BODY,
)
async def upload(
    sha256: Digest,
    request: Request,
    response: Response,
    publisher: PublisherOfBytes,
    context: Ctx,
    upload_offset: Annotated[
        int, Header(ge=0, le=MAX_FILE_SIZE, description="Number of the first byte sent.")
    ],
    upload_length: Annotated[
        int, Header(ge=0, le=MAX_FILE_SIZE, description="Size of the whole blob in bytes.")
    ],
) -> UploadView:
    """Send bytes of a blob, from `Upload-Offset` on. The last byte makes it whole.

    Whatever arrives is kept, also when the connection breaks: ask for the offset and go on there.
    When the answer says `complete`, the bytes were verified and are safely on disk.
    """
    limit = context.settings.max_upload_bytes
    if upload_length > limit:
        raise BlobTooLong(f"this server takes blobs of at most {limit} bytes", limit=limit)
    view = await in_thread(context.get(BlobStore).threads, _begin, context=context, sha256=sha256)
    if not view.complete:
        view = await _receive(
            context, request, sha256, upload_offset, upload_length, by=str(publisher)
        )
    return _tell(response, view)


async def _receive(
    context: Context, request: Request, sha256: str, offset: int, length: int, *, by: str
) -> UploadView:
    threads = context.get(BlobStore).threads
    hold = await in_thread(
        threads, context.get(BlobStore).begin, sha256=sha256, offset=offset, length=length
    )
    try:
        with suppress(ClientDisconnect):
            await receive_into(hold, Blocks(request.receive), threads)
        if hold.offset < length:
            return UploadView(offset=hold.offset, complete=False)
        await in_thread(threads, hold.finish)
    finally:
        await in_thread(threads, hold.close)
    await in_thread(
        threads, _record, context=context, sha256=sha256, size=length, by=by, now=context.clock()
    )
    return UploadView(offset=length, complete=True)


def _record(context: Context, sha256: str, size: int, by: str, now: datetime) -> None:
    try:
        with context.db.write() as session:
            service.record(session, sha256=sha256, size=size, by=by, now=now)
    except service.BlobPurged:
        context.get(BlobStore).delete(sha256)
        raise


READ_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole blob", "content": BYTES},
    206: {"description": "The part that was asked for", "content": BYTES},
    304: {"description": "The blob that the caller has"},
    416: {"description": "The blob ends before that range"},
    **responses(BlobTokenMissing, BlobDenied, BlobMissing),
}


@public.get("/blobs/{sha256}", response_class=Response, responses=READ_RESPONSES)
async def read_blob(sha256: Digest, request: Request, context: Ctx) -> Response:
    """Read a blob, or one range of it. Its bytes can never change, so caches may keep it."""
    flow = await check_may_read(context, request, sha256, path=blob_path(sha256))
    return await blob_response(
        context.get(BlobStore), sha256, headers=request.headers, body=True, flow=flow
    )


@public.head("/blobs/{sha256}", response_class=Response, responses=READ_RESPONSES)
async def read_blob_headers(sha256: Digest, request: Request, context: Ctx) -> Response:
    """The size of a blob, without its bytes."""
    await check_may_read(context, request, sha256, path=blob_path(sha256))
    return await blob_response(context.get(BlobStore), sha256, headers=request.headers, body=False)

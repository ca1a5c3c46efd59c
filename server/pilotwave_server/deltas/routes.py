"""Deltas over HTTP: to devices their bytes, to operators the list."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from pilotwave_server.blobs.access import BlobDenied, BlobTokenMissing, check_may_read
from pilotwave_server.blobs.port import BlobMissing, BlobStore
from pilotwave_server.blobs.routes import BYTES, Digest
from pilotwave_server.blobs.sending import blob_response
from pilotwave_server.context import Context
from pilotwave_server.deltas import jobs
from pilotwave_server.deltas.tables import DeltaRow
from pilotwave_server.deps import Ctx, Now, Operator, ReadSession, Viewer, WriteSession
from pilotwave_server.errors import NotFound
from pilotwave_server.fields import ApiReply
from pilotwave_server.paging import BadCursor, Page, Paging
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router, root_router

api = api_router(tag="deltas")
public = root_router(tag="deltas")
State = Literal["waiting", "ready", "useless", "failed"]
_SOON = timedelta(hours=1)
_BYTES_A_SECOND = 4_000_000  # of a file, for which a device is told to wait
_SOONEST_S, _LATEST_S = 2, 30


class DeltaMissing(NotFound):
    """There is no delta between these two: none is needed, it is not made yet, or does not pay."""

    code = "delta_missing"

    def __init__(self, old: str, new: str) -> None:
        super().__init__(f"there is no delta from {old} to {new}: fetch the whole blob")


class DeltaPending(NotFound):
    """The delta is being made. Ask again after `Retry-After` seconds, or fetch the whole blob."""

    code = "delta_pending"

    def __init__(self, row: DeltaRow) -> None:
        seconds = min(max(row.full_size // _BYTES_A_SECOND, _SOONEST_S), _LATEST_S)
        super().__init__(
            f"the delta from {row.from_sha256} to {row.to_sha256} is being made",
            headers={"Retry-After": str(seconds), "Cache-Control": "no-store"},
        )


class DeltaView(ApiReply):
    from_sha256: str = Field(description="The blob that a device has; for a first install, none.")
    to_sha256: str = Field(description="The blob that it gets.")
    model: str
    state: str = Field(description="`waiting`, `ready`, `useless` (it saves too little), `failed`.")
    full_size: int = Field(description="Size of the whole blob in bytes.")
    size: int | None = Field(description="Size of the delta in bytes.")
    detail: str | None = Field(description="Why it failed.")
    created_at: datetime
    finished_at: datetime | None


READ_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole delta", "content": BYTES},
    206: {"description": "The part that was asked for", "content": BYTES},
    304: {"description": "The delta that the caller has"},
    416: {"description": "The delta ends before that range"},
    **responses(BlobTokenMissing, BlobDenied, DeltaMissing, DeltaPending, BlobMissing),
}


async def _answer(
    old: str, new: str, request: Request, context: Context, *, body: bool
) -> Response:
    flow = await check_may_read(context, request, new, path=delta_path(old, new))
    found = await run_in_threadpool(find_delta, context, old, new)
    assert found.delta_sha256 is not None
    flow = flow.of_delta(size=found.size or 1, full=found.full_size)
    return await blob_response(
        context.get(BlobStore), found.delta_sha256, headers=request.headers, body=body, flow=flow
    )


def delta_path(old: str, new: str) -> str:
    """Where the delta from one blob to another is read."""
    return f"/deltas/{old}/{new}"


def find_delta(context: Context, old: str, new: str) -> DeltaRow:
    """The delta from one blob to another, ready to be read, or DeltaMissing, DeltaPending."""
    with context.db.read() as session:
        row = jobs.find(session, old, new)
    if row is not None and _comes_soon(context, row):
        raise DeltaPending(row)
    if row is None or row.state != "ready" or row.delta_sha256 is None:
        raise DeltaMissing(old, new)
    return row


def _comes_soon(context: Context, row: DeltaRow) -> bool:
    """Say whether a device had better wait; not for ever, should the workers be stuck."""
    if row.state != "waiting" or not context.settings.delta_processes:
        return False
    return context.clock() < row.created_at + _SOON


@public.get("/deltas/{from_sha256}/{to_sha256}", response_class=Response, responses=READ_RESPONSES)
async def read_delta(
    from_sha256: Digest, to_sha256: Digest, request: Request, context: Ctx
) -> Response:
    """Read the delta from one blob to another, or one range of it. Who may read the new blob may
    read the delta. `ETag` is the delta's own SHA-256."""
    return await _answer(from_sha256, to_sha256, request, context, body=True)


@public.head("/deltas/{from_sha256}/{to_sha256}", response_class=Response, responses=READ_RESPONSES)
async def read_delta_headers(
    from_sha256: Digest, to_sha256: Digest, request: Request, context: Ctx
) -> Response:
    """The size of a delta, without its bytes."""
    return await _answer(from_sha256, to_sha256, request, context, body=False)


@api.get(
    "/deltas/{from_sha256}/{to_sha256}",
    summary="Show a delta",
    responses=responses(DeltaMissing),
)
def show_delta(
    viewer: Viewer, session: ReadSession, from_sha256: Digest, to_sha256: Digest
) -> DeltaView:
    """What came of one pair of blobs."""
    row = jobs.find(session, from_sha256, to_sha256)
    if row is None:
        raise DeltaMissing(from_sha256, to_sha256)
    return DeltaView.model_validate(row)


@api.post(
    "/deltas/{from_sha256}/{to_sha256}/again",
    summary="Make a delta again",
    responses=responses(DeltaMissing),
)
def make_delta_again(
    operator: Operator, session: WriteSession, now: Now, from_sha256: Digest, to_sha256: Digest
) -> DeltaView:
    """Put a pair whose delta failed, or did not pay, back on the list."""
    row = jobs.again(session, from_sha256, to_sha256, actor=str(operator), now=now)
    if row is None:
        raise DeltaMissing(from_sha256, to_sha256)
    return DeltaView.model_validate(row)


@api.get("/deltas", summary="List deltas", responses=responses(BadCursor))
def list_deltas(
    viewer: Viewer,
    session: ReadSession,
    page: Paging,
    model: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
    state: Annotated[State | None, Query()] = None,
) -> Page[DeltaView]:
    """Which pairs of blobs the fleet needed deltas for, and what came of each."""
    rows, cursor = jobs.list_deltas(session, page=page, model=model, state=state)
    return Page(items=[DeltaView.model_validate(row) for row in rows], next_cursor=cursor)

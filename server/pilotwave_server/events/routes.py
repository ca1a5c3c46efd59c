"""The stream of events over HTTP, as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from pilotwave_server.context import Context
from pilotwave_server.deps import Credentials, Ctx, Viewer, get_actor
from pilotwave_server.errors import ServerError
from pilotwave_server.events.feed import (
    BadEventCursor,
    BadEventType,
    Cursor,
    Types,
    newest,
    read_cursor,
)
from pilotwave_server.events.hub import Hub, TooManyListeners
from pilotwave_server.events.types import check_types
from pilotwave_server.operators.roles import Role
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="audit")

QUIET_S = 15.0
RETRY_MS = 2000
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
STREAM = {"content": {"text/event-stream": {"schema": {"type": "string"}}}}


@router.get(
    "/events/stream",
    summary="Follow events as they happen",
    response_class=StreamingResponse,
    responses={200: STREAM, **responses(BadEventCursor, BadEventType, TooManyListeners)},
)
async def stream(
    viewer: Viewer,
    request: Request,
    context: Ctx,
    credentials: Credentials,
    type: Annotated[
        list[str] | None, Query(description="Types, as `rollout.*`; repeatable. None: each.")
    ] = None,
    after: Annotated[
        str | None, Query(max_length=64, description="As the header; `0.0` begins at the start.")
    ] = None,
    last_event_id: Annotated[
        str | None, Header(max_length=64, description="The `id` of the last event received.")
    ] = None,
) -> StreamingResponse:
    """Server-sent events, without end. Each `id` is a place: whoever comes back with it as
    `Last-Event-ID` is sent everything since, from any process of the server. A line `id:` without
    data comes every 15 seconds. The token is looked at anew then; the stream ends with it."""
    hub = context.get(Hub)
    types = check_types(type or [])
    hub.check_room()
    place = last_event_id or after
    cursor = hub.settled.place
    if place is not None:
        cursor = await run_in_threadpool(_check_place, context, place)
    return StreamingResponse(
        _frames(request, context, credentials, types, cursor),
        media_type="text/event-stream",
        headers=HEADERS,
    )


def _check_place(context: Context, text: str) -> Cursor:
    cursor = read_cursor(text)
    with context.db.read() as session:
        end = newest(session)
    if not end.covers(cursor):
        raise BadEventCursor(f"{cursor} lies behind the newest event of this fleet, which is {end}")
    return cursor


async def _frames(
    request: Request, context: Context, credentials: Credentials, types: Types, cursor: Cursor
) -> AsyncIterator[str]:
    hub = context.get(Hub)
    with hub.listener(types, cursor) as listener:
        yield f"retry: {RETRY_MS}\nid: {listener.cursor}\n\n"
        checked = time.monotonic()
        while not hub.closed:
            place = listener.cursor
            found = await listener.more(QUIET_S)
            for event in found:
                place = event.after_cursor(place)
                yield f"id: {place}\nevent: {event.type}\ndata: {event.document}\n\n"
            if time.monotonic() - checked < QUIET_S:
                continue
            checked = time.monotonic()
            if not await _still_good(request, context, credentials):
                return
            yield f": {context.clock().isoformat()}\nid: {listener.cursor}\n\n"


async def _still_good(request: Request, context: Context, credentials: Credentials) -> bool:
    try:
        actor = await get_actor(request, context, credentials, context.clock())
    except ServerError:
        return False
    return actor.role.covers(Role.VIEWER)

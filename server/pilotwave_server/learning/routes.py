"""`/api/v1/learning/rounds`: start rounds of training plans, watch them, end them, take results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import Path, Query, Response
from pydantic import Field
from sqlalchemy import select

from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.deps import Ctx, Now, Operator, ReadSession, Viewer, WriteSession
from pilotwave_server.errors import Conflict
from pilotwave_server.fields import ApiReply, ApiRequest
from pilotwave_server.groups.service import GroupUnknown
from pilotwave_server.learning import finish, rounds
from pilotwave_server.learning.finish import RoundNotOpen
from pilotwave_server.learning.rounds import PlanUnknown, RoundNotPossible, RoundUnknown
from pilotwave_server.learning.tables import RoundRow, UpdateRow
from pilotwave_server.paging import BadCursor, Page, Paging
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="learning")
Number = Annotated[int, Path(ge=1, le=2**62)]
NAME = "^[a-z0-9._-]+$"


class NoResult(Conflict):
    """The round is not over, or failed."""

    code = "no_result"


class RoundRequest(ApiRequest):
    model: str = Field(max_length=64, pattern=NAME)
    plan: str = Field(max_length=64, pattern=NAME)
    group: str = Field(max_length=64, pattern=NAME)


class RoundView(ApiReply):
    id: int
    model: str
    plan: str
    plan_sha256: str
    group: str
    state: str = Field(description="`open`, `closing`, `done` or `failed`.")
    opened_at: datetime
    opened_by: str
    ends_at: datetime
    ended_at: datetime | None
    detail: str | None = Field(description="Why it failed.")
    devices: int = Field(description="How many devices sent an update.")
    examples: int = Field(description="Of how many examples in all.")
    least_devices: int = Field(description="How many devices the plan asks for.")
    base: str = Field(description="The version that the plan is based on.")
    variant: str
    embedding: str = Field(description="The output that the last layer reads.")
    features: int
    classes: int
    left_out: int | None = Field(description="How many were left out of the result.")
    right: float | None = Field(
        description="The share of the publisher's own examples that the result gets right."
    )
    right_with_all: float | None = Field(description="The same with no device left out.")


class UpdateView(ApiReply):
    device: str
    examples: int
    received_at: datetime
    gain: float | None = Field(description="By how much the result is better without it.")


def views(session: ReadSession, rows: Sequence[RoundRow]) -> list[RoundView]:
    counts = rounds.updates_of(session, rows)
    found = []
    for row in rows:
        devices, examples = counts.get(row.id, (0, 0))
        told = {key: getattr(row, key, None) for key in RoundView.model_fields}
        figures = row.figures or {}
        told |= {key: figures.get(key) for key in ("left_out", "right", "right_with_all")}
        plan = rounds.plan_of(session, row)
        shown = ("least_devices", "embedding", "features", "classes")
        told |= {key: getattr(plan, key) for key in shown}
        told |= {"base": plan.base.version, "variant": plan.base.variant}
        told |= {"devices": devices, "examples": examples}
        found.append(RoundView.model_validate(told))
    return found


@router.post(
    "/learning/rounds",
    operation_id="start_round",
    status_code=201,
    summary="Have a group's devices learn by a plan",
    responses=responses(PlanUnknown, RoundNotPossible, GroupUnknown),
)
def start(operator: Operator, session: WriteSession, now: Now, body: RoundRequest) -> RoundView:
    """Those take part whose owners allow it. A plan has one round that did not fail."""
    named = {"model": body.model, "plan": body.plan, "group": body.group}
    made = rounds.start(session, **named, actor=str(operator), now=now)
    return views(session, [made])[0]


@router.get(
    "/learning/rounds",
    operation_id="list_rounds",
    summary="List rounds",
    responses=responses(BadCursor),
)
def list_rounds(
    viewer: Viewer,
    session: ReadSession,
    page: Paging,
    model: Annotated[str | None, Query(max_length=64, pattern=NAME)] = None,
) -> Page[RoundView]:
    """Newest first."""
    rows, cursor = rounds.list_of(session, model=model, page=page)
    return Page(items=views(session, rows), next_cursor=cursor)


@router.get(
    "/learning/rounds/{number}/devices",
    operation_id="list_round_devices",
    summary="List who took part in a round",
    responses=responses(RoundUnknown),
)
def list_devices(number: Number, viewer: Viewer, session: ReadSession) -> list[UpdateView]:
    """Each with its number of examples, and those that were left out with what they cost; the first
    10,000."""
    u = UpdateRow
    rounds.find(session, number)
    query = select(u).where(u.round_id == number).order_by(u.device).limit(10_000)
    return [UpdateView.model_validate(row) for row in session.scalars(query)]


@router.post(
    "/learning/rounds/{number}/end",
    operation_id="end_round",
    status_code=204,
    summary="End a round now",
    responses=responses(RoundUnknown, RoundNotOpen),
)
def end(number: Number, operator: Operator, context: Ctx, now: Now) -> None:
    """Its result is worked out of what came, and the updates are deleted."""
    with context.db.write() as session:
        finish.end(session, number, actor=str(operator), now=now)
    finish.finish(context.db, context.get(BlobStore), number, now=now)


@router.get(
    "/learning/rounds/{number}/head",
    operation_id="get_round_head",
    summary="Take a round's result",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        **responses(RoundUnknown, NoResult),
    },
)
def head(number: Number, operator: Operator, session: ReadSession) -> Response:
    """The new last layer, unsigned: [features + 1, classes] as little-endian float32, row by row,
    the last row the bias."""
    row = rounds.find(session, number)
    if row.head is None:
        raise NoResult(f"round {number} is {row.state}")
    return Response(row.head, media_type="application/octet-stream")

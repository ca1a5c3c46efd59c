"""`GET /device/v1/learning`: the rounds that wait for a device; only those that allow it ask.
`GET /device/v1/plans/<sha256>`: a plan whose digest the device has from signed metadata.
`GET /device/v1/masked/<sha256>`: what the masked round of a plan waits for."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from pilotwave_protocol.learning.masked.step import Step, Wants
from pilotwave_protocol.learning.plan import MAX_ROUNDS, parse_plan
from pilotwave_server.blobs.port import BlobStore
from pilotwave_server.context import Context
from pilotwave_server.deps import Ctx
from pilotwave_server.device_api.poll import RevokedToken
from pilotwave_server.device_api.route_parts import PREFIX, DeviceCredentials, name_of_sender
from pilotwave_server.device_api.tokens import BadToken, ExpiredToken
from pilotwave_server.devices.service import get_device
from pilotwave_server.fields import ApiReply
from pilotwave_server.learning.asked import rounds_for, waiting_for
from pilotwave_server.learning.experiments import PlanUnknown, content_of
from pilotwave_server.learning.masked.steps import step_for
from pilotwave_server.learning.rounds import head_of
from pilotwave_server.learning.statements import RoundOver
from pilotwave_server.problems import responses

router = APIRouter(tags=["device"], prefix=PREFIX)


class WaitingRound(ApiReply):
    model: str
    plan: str = Field(description="Its name; what it is, the model's publisher has signed.")
    content: str = Field(description="The plan's bytes, base64.")
    round: int = Field(description="Which of the plan's rounds is open.")
    conditions: dict[str, Any] = Field(
        description="What must hold before the device takes part, beside its owner's own settings."
    )


class WaitingRounds(ApiReply):
    rounds: list[WaitingRound]


class MaskedStep(ApiReply):
    wants: str = Field(
        description="`keys`, `shares`, `input` or `answer`: what the device is to send. `wait`;"
        " `lost`: it may join another group; `over`: nothing any more."
    )
    attempt: int = Field(description="The device's first group in the round, or its second.")
    members: list[str] = Field(description="With `shares`: the keys of each member, base64.")
    boxes: dict[str, str] = Field(description="With `input`: what the others sent, base64.")
    survivors: list[str] = Field(description="With `answer`: the members that are left.")


@router.get("/learning", responses=responses(BadToken, ExpiredToken, RevokedToken))
async def learning(
    request: Request, context: Ctx, token: DeviceCredentials, response: Response
) -> WaitingRounds:
    """Open rounds of the groups that the device is in, which it has not answered."""
    response.headers["Cache-Control"] = "no-store"
    name = await name_of_sender(request, context)
    return await run_in_threadpool(_waiting, context, name)


@router.get(
    "/plans/{sha256}",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {}}},
        **responses(BadToken, ExpiredToken, RevokedToken, PlanUnknown),
    },
)
async def plan(
    request: Request,
    context: Ctx,
    token: DeviceCredentials,
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")],
) -> Response:
    """The plan's bytes, as its publisher signed them."""
    await name_of_sender(request, context)
    content = await run_in_threadpool(_plan, context, sha256)
    return Response(content, media_type="application/json")


def _plan(context: Context, sha256: str) -> bytes:
    with context.db.read() as session:
        return content_of(session, sha256)


def _waiting(context: Context, device: str) -> WaitingRounds:
    found = rounds_for(context.db, device, now=context.clock())
    return WaitingRounds(
        rounds=[
            WaitingRound(
                model=one.experiment.model,
                plan=one.experiment.plan,
                content=base64.b64encode(one.content).decode(),
                round=one.round.number,
                conditions=one.policy.waits_for,
            )
            for one in found
        ]
    )


@router.get(
    "/learning/{plan}/rounds/{number}/head",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}},
        **responses(BadToken, ExpiredToken, RevokedToken, RoundOver),
    },
)
async def round_head(
    plan: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="The plan's digest.")],
    number: Annotated[int, Path(ge=1, le=MAX_ROUNDS)],
    request: Request,
    context: Ctx,
    token: DeviceCredentials,
) -> Response:
    """The head that an open round goes on from: [features + 1, classes] as little-endian float32,
    row by row."""
    name = await name_of_sender(request, context)
    found = await run_in_threadpool(_head, context, name, plan, number)
    headers = {"Cache-Control": "no-store"}
    return Response(found, headers=headers, media_type="application/octet-stream")


def _head(context: Context, device: str, digest: str, number: int) -> bytes:
    with context.db.read() as session:
        waiting = waiting_for(session, get_device(session, device), context.clock())
        for one in waiting:
            if (one.experiment.plan_sha256, one.round.number) == (digest, number):
                plan = parse_plan(one.content)
                before = head_of(session, one.experiment, number - 1)
                break
        else:
            raise RoundOver(f"no round {number} of this plan waits for {device}")
    if plan.head is None:
        raise RoundOver(f"plan {plan.plan} goes on from no head")
    return before or context.get(BlobStore).read(plan.head.sha256, plan.head_bytes)


@router.get("/masked/{plan}", responses=responses(BadToken, ExpiredToken, RevokedToken))
async def masked_step(
    request: Request,
    context: Ctx,
    token: DeviceCredentials,
    response: Response,
    plan: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="The plan's SHA-256.")],
) -> MaskedStep:
    """What a masked round of a plan waits for from the device."""
    response.headers["Cache-Control"] = "no-store"
    name = await name_of_sender(request, context)
    return await run_in_threadpool(_masked_step, context, name, plan)


def _masked_step(context: Context, device: str, plan: str) -> MaskedStep:
    with context.db.read() as session:
        row = get_device(session, device)
        waiting = waiting_for(session, row, context.clock())
        found = next((one for one in waiting if one.experiment.plan_sha256 == plan), None)
        step = Step(Wants.WAIT) if found is None else step_for(session, found.round, row.id)
    return MaskedStep.model_validate(step.plain())

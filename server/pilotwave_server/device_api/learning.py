"""`GET /device/v1/learning`: the rounds that wait for a device; only those that allow it ask."""

from __future__ import annotations

import base64

from fastapi import APIRouter, Request, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from pilotwave_server.context import Context
from pilotwave_server.deps import Ctx
from pilotwave_server.device_api.enrolment import DeviceCredentials
from pilotwave_server.device_api.poll import Polls, RevokedToken
from pilotwave_server.device_api.tokens import BadToken, ExpiredToken
from pilotwave_server.devices.service import get_device
from pilotwave_server.fields import ApiReply
from pilotwave_server.learning.rounds import open_for
from pilotwave_server.problems import responses

router = APIRouter(tags=["device"], prefix="/device/v1")


class WaitingRound(ApiReply):
    model: str
    plan: str = Field(description="Its name; what it is, the model's publisher has signed.")
    content: str = Field(description="The plan's bytes, base64.")
    round: int = Field(description="Which of the plan's rounds is open.")


class WaitingRounds(ApiReply):
    rounds: list[WaitingRound]


@router.get("/learning", responses=responses(BadToken, ExpiredToken, RevokedToken))
async def learning(
    request: Request, context: Ctx, token: DeviceCredentials, response: Response
) -> WaitingRounds:
    """Open rounds of the groups that the device is in, which it has not answered."""
    response.headers["Cache-Control"] = "no-store"
    authorization = request.headers.get("authorization", "").encode("latin-1")
    record = await context.get(Polls).known(authorization)
    return await run_in_threadpool(_waiting, context, record.name)


def _waiting(context: Context, device: str) -> WaitingRounds:
    with context.db.read() as session:
        found = open_for(session, get_device(session, device), context.clock())
    return WaitingRounds(
        rounds=[
            WaitingRound(
                model=of.model,
                plan=of.plan,
                content=base64.b64encode(content).decode(),
                round=row.number,
            )
            for row, of, content in found
        ]
    )

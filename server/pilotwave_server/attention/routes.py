"""What needs attention, over HTTP."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from pilotwave_server.attention import service
from pilotwave_server.attention.service import NothingToAcknowledge
from pilotwave_server.deps import Ctx, Now, Operator, ReadSession, Viewer, WriteSession
from pilotwave_server.devices.silence import silence
from pilotwave_server.fields import ApiReply, ApiRequest
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="server", prefix="/attention")


class AttentionItem(ApiReply):
    key: str = Field(description="Names the entry as it is now.")
    state: str
    object: str = Field(description="What it is about, as `rollout/r5`; may be empty.")
    title: str
    sentence: str
    model: str = Field(description="The model that it concerns; empty: none.")
    acknowledged_by: str | None
    acknowledged_at: datetime | None
    note: str | None


class AttentionList(ApiReply):
    items: list[AttentionItem] = Field(description="Those that nobody acknowledged come first.")


class AcknowledgeRequest(ApiRequest):
    key: str = Field(max_length=200)
    note: str = Field("", max_length=512)


class WithdrawRequest(ApiRequest):
    key: str = Field(max_length=200)


@router.get("", summary="List what needs attention")
def list_attention(viewer: Viewer, session: ReadSession, context: Ctx, now: Now) -> AttentionList:
    """Rollouts that wait or failed; counts of devices that are pending, refuse their orders, fail
    or are silent; keys used by two machines; roles that expire soon; a restored server."""
    items = service.list_items(session, now, silence(context.settings, now))
    return AttentionList(items=[AttentionItem.model_validate(vars(item)) for item in items])


@router.post(
    "/acknowledge",
    operation_id="acknowledge_attention",
    summary="Acknowledge an entry",
    responses=responses(NothingToAcknowledge),
)
def acknowledge(
    operator: Operator, session: WriteSession, context: Ctx, now: Now, body: AcknowledgeRequest
) -> AttentionItem:
    """It stays listed, with who and when. If it changes or comes again, it is a new entry. An entry
    about many devices stays acknowledged until another device is added."""
    quiet = silence(context.settings, now)
    item = service.acknowledge(
        session, key=body.key, note=body.note, actor=str(operator), now=now, quiet=quiet
    )
    return AttentionItem.model_validate(vars(item))


@router.post(
    "/withdraw",
    operation_id="withdraw_acknowledgement",
    summary="Withdraw an acknowledgement",
    responses=responses(NothingToAcknowledge),
)
def withdraw(
    operator: Operator, session: WriteSession, context: Ctx, now: Now, body: WithdrawRequest
) -> AttentionItem:
    quiet = silence(context.settings, now)
    item = service.withdraw(session, key=body.key, actor=str(operator), now=now, quiet=quiet)
    return AttentionItem.model_validate(vars(item))

"""Groups of masked rounds as the API shows them."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.fields import ApiReply
from pilotwave_server.learning.masked.phases import Phase, Sent
from pilotwave_server.learning.masked.tables import GroupRow, MemberRow
from pilotwave_server.learning.tables import RoundRow

_MOST = 1000


class MemberView(ApiReply):
    device: str
    sent: Sent = Field(description="Its last message.")


class MaskedGroupView(ApiReply):
    number: int = Field(description="From 1, in the order in which they were made.")
    phase: Phase = Field(description="What the group waits for, or how it ended.")
    ends_at: datetime = Field(description="When its phase ends.")
    detail: str | None = Field(description="Why it is lost.")
    devices: int = Field(description="How many devices its sum is of.")
    examples: int = Field(description="Of how many examples its sum is.")
    gain: float | None = Field(description="By how much the result is better without it.")
    members: list[MemberView]


class GroupsView(ApiReply):
    waiting: list[str] = Field(description="Devices that wait for a group.")
    groups: list[MaskedGroupView]


def groups_view(session: Session, where: RoundRow) -> GroupsView:
    """The first thousand groups of a round, and as many devices that wait."""
    g, m = GroupRow, MemberRow
    rows = session.scalars(
        select(g).where(g.round_id == where.id).order_by(g.id).limit(_MOST)
    ).all()
    members = defaultdict[int | None, list[MemberRow]](list)
    query = select(m).where(m.round_id == where.id).order_by(m.device)
    for member in session.scalars(query):
        members[member.group_id].append(member)
    shown = []
    for number, row in enumerate(rows, 1):
        told = {key: getattr(row, key, None) for key in MaskedGroupView.model_fields}
        told |= {"number": number, "members": members[row.id]}
        shown.append(MaskedGroupView.model_validate(told))
    waiting = [member.device for member in members[None][:_MOST]]
    return GroupsView(waiting=waiting, groups=shown)

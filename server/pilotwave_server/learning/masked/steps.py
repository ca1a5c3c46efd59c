"""Say what a masked round waits for from a device."""

from __future__ import annotations

from sqlalchemy.orm import Session

from pilotwave_protocol.learning.masked.step import Step, Wants
from pilotwave_server.learning.masked.members import newest_member, rows_of
from pilotwave_server.learning.masked.phases import Phase, Sent, has_sent, wants_of
from pilotwave_server.learning.masked.tables import GroupRow, MemberRow
from pilotwave_server.learning.tables import RoundRow


def is_awaited(session: Session, where: RoundRow, device_id: int) -> bool:
    """Say whether a device has anything to do in a round now: who waits need not ask."""
    member = newest_member(session, where, device_id)
    if member is not None and member.sent == Sent.ANSWER.value:
        return False
    return _wants(session, member) is not Wants.WAIT


def step_for(session: Session, where: RoundRow, device_id: int) -> Step:
    """What a device is to do next."""
    member = newest_member(session, where, device_id)
    wants = _wants(session, member)
    if member is None or member.group_id is None:
        return Step(wants, member.attempt if member is not None else 1)
    group = session.get_one(GroupRow, member.group_id)
    others = rows_of(session, group)
    match wants:
        case Wants.SHARES:
            return Step(wants, member.attempt, members=tuple(row.keys for row in others))
        case Wants.INPUT:
            boxes = {r.device: r.shares for r in others if r.shares and r.id != member.id}
            return Step(wants, member.attempt, boxes=boxes)
        case Wants.ANSWER:
            left = tuple(r.device for r in others if has_sent(Sent(r.sent), Sent.INPUT))
            return Step(wants, member.attempt, survivors=left)
    return Step(wants, member.attempt)


def _wants(session: Session, member: MemberRow | None) -> Wants:
    if member is None:
        return Wants.KEYS
    if member.group_id is None:
        return Wants.WAIT
    group = session.get_one(GroupRow, member.group_id)
    return wants_of(Phase(group.phase), Sent(member.sent), member.attempt)

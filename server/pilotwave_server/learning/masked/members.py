"""Find the devices that sent keys in a masked round, and those of a group."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.learning.masked.tables import GroupRow, MemberRow
from pilotwave_server.learning.tables import RoundRow


def rows_of(session: Session, group: GroupRow) -> list[MemberRow]:
    """A group's members, by their names."""
    query = select(MemberRow).where(MemberRow.group_id == group.id).order_by(MemberRow.device)
    return list(session.scalars(query))


def newest_member(session: Session, where: RoundRow, device_id: int) -> MemberRow | None:
    """A device's newest part in a round."""
    m = MemberRow
    query = select(m).where(m.round_id == where.id, m.device_id == device_id)
    return session.scalar(query.order_by(m.attempt.desc()).limit(1))

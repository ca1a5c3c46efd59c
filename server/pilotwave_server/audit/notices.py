"""What upgrades and the server decided, listed until somebody says that it was read."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pilotwave_server.audit.tables import NoticeRow


def list_notices(session: Session) -> list[NoticeRow]:
    """All that were not dismissed, the oldest first."""
    return list(session.scalars(select(NoticeRow).order_by(NoticeRow.id)))


def dismiss_notices(session: Session) -> int:
    """Forget them all; how many there were."""
    found = list_notices(session)
    session.execute(delete(NoticeRow))
    return len(found)


def put_notice(session: Session, *, object: str, sentence: str, now: datetime) -> None:
    """Add what the server decided, in place of what it said of the same thing before."""
    session.execute(delete(NoticeRow).where(NoticeRow.object == object))
    session.add(NoticeRow(object=object, sentence=sentence, at=now))

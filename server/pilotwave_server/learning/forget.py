"""Delete what devices sent in a round that is over, masked or not. Who took part stays."""

from __future__ import annotations

from sqlalchemy.orm import Session

from pilotwave_server.learning.masked import groups
from pilotwave_server.learning.updates import forget_updates


def forget(session: Session, round_id: int) -> None:
    """Delete updates, sums of groups, shares and masked numbers."""
    forget_updates(session, round_id)
    groups.forget(session, round_id)

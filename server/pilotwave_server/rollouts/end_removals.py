"""End a removal: assigning the model again, rolling it out or pinning it does."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from pilotwave_server.db import touch_fleet
from pilotwave_server.rollouts.tables import RemovalRow


def end_for_group(session: Session, group_id: int, model: str) -> bool:
    """End a group's removal, as assigning the model again does; say whether there was one."""
    return _end(session, RemovalRow.group_id == group_id, model)


def end_for_devices(session: Session, device_ids: Collection[int], model: str) -> bool:
    """End the removals of devices, as pinning the model does; say whether there was one."""
    return bool(device_ids) and _end(session, RemovalRow.device_id.in_(device_ids), model)


def _end(session: Session, whose: ColumnElement[bool], model: str) -> bool:
    found = select(RemovalRow.id).where(whose, RemovalRow.model == model)
    if session.scalar(found.limit(1)) is None:
        return False
    session.execute(delete(RemovalRow).where(whose, RemovalRow.model == model))
    touch_fleet(session)
    return True

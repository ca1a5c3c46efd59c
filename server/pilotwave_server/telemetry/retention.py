"""How long devices' events and history are kept: by age, and by number for each device.

Small deletes, each in a transaction of its own, at the lowest priority: a flood that was stored
does not hold up check-ins when it goes. Live metrics need none of this: a device has at most so
many rows of them (`live.MAX_ROWS`), each merged.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from pilotwave_server.db import Database
from pilotwave_server.devices.report_tables import DeviceEventRow, DeviceHistoryRow

BATCH = 500
Kept = type[DeviceEventRow] | type[DeviceHistoryRow]


def clean(db: Database, *, now: datetime, days: int, per_device: int) -> int:
    """Delete what is kept no longer; returns how many rows."""
    gone = 0
    while count := _delete_old(db, now - timedelta(days=days)):
        gone += count
    for kind in (DeviceEventRow, DeviceHistoryRow):
        with db.read() as session:
            over = _over(session, kind, per_device)
        for device, extra in over:
            while extra > 0 and (count := _delete_oldest(db, kind, device, min(extra, BATCH))):
                extra, gone = extra - count, gone + count
    return gone


def _delete_old(db: Database, before: datetime) -> int:
    """Delete a batch of old events. The numbers of rows rise with time, so that the first rows
    tell whether there is any."""
    e = DeviceEventRow
    with db.write() as session:
        first = session.execute(select(e.id, e.received_at).order_by(e.id).limit(BATCH)).tuples()
        old = [id for id, received_at in first if received_at < before]
        if old:
            session.execute(delete(e).where(e.id.in_(old)))
    return len(old)


def _over(session: Session, kind: Kept, per_device: int) -> list[tuple[int, int]]:
    """The devices that have too many rows, and how many too many."""
    counted = select(kind.device_id, func.count() - per_device).group_by(kind.device_id)
    return list(session.execute(counted.having(func.count() > per_device)).tuples())


def _delete_oldest(db: Database, kind: Kept, device: int, count: int) -> int:
    with db.write() as session:
        oldest = select(kind.id).where(kind.device_id == device).order_by(kind.id).limit(count)
        ids = list(session.scalars(oldest))
        if ids:
            session.execute(delete(kind).where(kind.id.in_(ids)))
    return len(ids)

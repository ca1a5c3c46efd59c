"""Two machines that use one device's key: say so, hold the device's orders, and end it.

Check-ins find it (`telemetry/boots.py`). While it lasts the device is offered nothing, so both
machines keep what they run. It ends when an operator says so, when one of the machines was silent
for long enough, or when the device enrols with a new key.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pilotwave_server.audit.service import record
from pilotwave_server.db import next_revision
from pilotwave_server.devices.service import find_device, get_device
from pilotwave_server.devices.tables import DeviceRow

SENTENCE = (
    "two machines use the key of {device}, probably copies of one disk image: nothing is offered "
    "until one of them is enrolled anew (on it: `pilotwave-agent enrol --new-identity --server URL "
    "--name NEW-NAME --code CODE --root root.json --data DIR`), and then "
    "`pilotwave devices settle {device}`"
)
_INTERVALS = 10
_LEAST = timedelta(minutes=10)


def ends_after(row: DeviceRow) -> timedelta:
    """Return for how long one of the machines must be silent: ten check-ins, at least 10 min."""
    return max(_LEAST, _INTERVALS * timedelta(seconds=row.check_in_s or 0))


def look(session: Session, *, name: str, now: datetime) -> None:
    """Begin or end a conflict as the last check-ins say."""
    row = find_device(session, name, lock=True)
    if row is None or row.state != "enrolled":
        return
    is_on = row.conflict_at is not None and now - row.conflict_at < ends_after(row)
    if is_on and row.conflict_since is None:
        row.conflict_since = now
        _note(session, row, "device.conflict", f"device/{name}", now)
    elif not is_on and row.conflict_since is not None:
        _end(session, row, f"device/{name}", now)


def settle(session: Session, *, name: str, actor: str, now: datetime) -> DeviceRow:
    """End a conflict by an operator's word; what was known of the machines is forgotten."""
    row = get_device(session, name, lock=True)
    if row.conflict_since is not None:
        row.boots = []
        _end(session, row, actor, now)
    return row


def count(session: Session) -> int:
    """How many devices are in conflict."""
    query = select(func.count()).where(DeviceRow.conflict_since.is_not(None))
    return session.scalar(query) or 0


def _end(session: Session, row: DeviceRow, actor: str, now: datetime) -> None:
    row.conflict_since = row.conflict_at = None
    _note(session, row, "device.conflict_end", actor, now)


def _note(session: Session, row: DeviceRow, verb: str, actor: str, now: datetime) -> None:
    row.revision = next_revision(session)
    after = {"conflict_since": row.conflict_since and row.conflict_since.isoformat()}
    record(session, actor=actor, verb=verb, object=f"device/{row.name}", now=now, after=after)

"""Count the devices in each kind of trouble, and find who came into it last.

Each count but that of silent devices, each of which was told an interval of its own, reads the
devices in trouble by an index, not the fleet. Leaving out nobody but those who
left, `newest` only rises while somebody comes: what was acknowledged with it stays acknowledged
until somebody new is in trouble.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from pilotwave_server.devices.report_tables import DeviceModelRow
from pilotwave_server.devices.service import (
    FAILED,
    OUT,
    count_devices,
    count_failing,
    count_refusing,
    drifting,
    is_drifting,
)
from pilotwave_server.devices.silence import Silence
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.inventory.finding import DeviceFilter, matching

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, order=True)
class Came:
    """When a device came into trouble. Two may come at the same moment: its id comes second."""

    at: datetime
    id: int

    def __str__(self) -> str:
        """Digits that sort as the moments do."""
        return f"{(self.at - _EPOCH) // timedelta(microseconds=1):014x}-{self.id:08x}"


@dataclass(frozen=True)
class Trouble:
    """So many devices are in `kind`, a word by which the list of devices is filtered."""

    kind: str
    count: int
    newest: Came


def troubles(session: Session, quiet: Silence) -> Iterator[Trouble]:
    """Each kind of trouble that a device is in."""
    yield from _pending(session)
    yield from _in_conflict(session)
    yield from _refusing(session)
    yield from _failing(session)
    yield from _silent(session, quiet)
    yield from _drifting(session, quiet.now)


def _pending(session: Session) -> Iterator[Trouble]:
    d = DeviceRow
    rules = [d.state == "pending"]
    for came in _newest(session, select(d.created_at, d.id).where(*rules)):
        yield Trouble("pending", count_devices(session, rules), came)


def _in_conflict(session: Session) -> Iterator[Trouble]:
    d = DeviceRow
    rules = [d.conflict_since.is_not(None)]
    for came in _newest(session, select(d.conflict_since, d.id).where(*rules)):
        yield Trouble("conflict", count_devices(session, rules), came)


def _refusing(session: Session) -> Iterator[Trouble]:
    d = DeviceRow
    refusing = select(d.refused_since, d.id).where(
        d.refused_since.is_not(None), d.refusal.is_not(None), d.state.not_in(OUT)
    )
    for came in _newest(session, refusing):
        yield Trouble("refusing", count_refusing(session), came)


def _failing(session: Session) -> Iterator[Trouble]:
    """Where a model failed or went back. The count is that of the list, refusing devices too."""
    d, m = DeviceRow, DeviceModelRow
    failed = (
        select(m.since, d.id)
        .join(d, d.id == m.device_id)
        .where(m.state.in_(FAILED), d.state.not_in(OUT))
    )
    for came in _newest(session, failed):
        yield Trouble("failing", count_failing(session), came)


def _silent(session: Session, quiet: Silence) -> Iterator[Trouble]:
    """Those that went silent. One that has just enrolled is given the time to say something."""
    d = DeviceRow
    heard = func.coalesce(d.last_seen, d.enrolled_at, d.created_at)
    rules = [
        *matching(session, DeviceFilter(standing="silent"), quiet),
        quiet.is_past(session, heard),
    ]
    last = quiet.ends(session, heard).desc()
    query = select(heard, quiet.quiet_s(session), d.id).where(*rules).order_by(last, d.id.desc())
    found = session.execute(query.limit(1)).first()
    if found is not None:
        at, after_s, device = found
        came = Came(at + timedelta(seconds=after_s), device)
        yield Trouble("silent", count_devices(session, rules), came)


def _drifting(session: Session, now: datetime) -> Iterator[Trouble]:
    for came in _newest(session, drifting(now)):
        yield Trouble("drifting", count_devices(session, [is_drifting(now)]), came)


def _newest(session: Session, query: Select[Any]) -> list[Came]:
    """Who came last, if anybody did."""
    at: ColumnElement[Any]
    at, device = query.selected_columns
    found = session.execute(query.order_by(at.desc(), device.desc()).limit(1)).first()
    return [] if found is None else [Came(*found)]

"""Count the devices in each kind of trouble, and find who came into it last.

Each count reads the devices in trouble by an index, not the fleet. Leaving out nobody but those who
left, `newest` only rises while somebody comes: what was acknowledged with it stays acknowledged
until somebody new is in trouble.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session

from pilotwave_protocol.messages import AGENT_PROFILE
from pilotwave_server.devices.finding import DeviceFilter, matching
from pilotwave_server.devices.service import (
    FAILED,
    OUT,
    count_devices,
    count_failing,
    count_refusing,
)
from pilotwave_server.devices.silence import Silence
from pilotwave_server.devices.tables import DeviceRow
from pilotwave_server.groups.selector import compile_sql, parse
from pilotwave_server.telemetry.tables import DeviceModelRow

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ON_BATTERY = parse(f"fact.{AGENT_PROFILE}=battery")


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


def troubles(session: Session, quiet: Silence, now: datetime) -> Iterator[Trouble]:
    """Each kind of trouble that a device is in."""
    yield from _pending(session)
    yield from _in_conflict(session)
    yield from _refusing(session)
    yield from _failing(session)
    yield from _silent(session, quiet, now)


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


def _silent(session: Session, quiet: Silence, now: datetime) -> Iterator[Trouble]:
    """Those that went silent. One that has just enrolled is given the time to say something."""
    d = DeviceRow
    heard = func.coalesce(d.last_seen, d.enrolled_at, d.created_at)
    # the second says what the first implies, in words that the index on last_seen understands
    rules = [
        *matching(session, DeviceFilter(standing="silent"), quiet),
        or_(d.last_seen <= quiet.since, d.last_seen.is_(None)),
        heard <= quiet.since,
    ]
    dialect = session.get_bind().dialect.name
    on_battery = compile_sql(_ON_BATTERY, d.labels, d.facts, dialect=dialect)
    late = _newest(session, select(heard, d.id).where(*rules), after=now - quiet.since)
    if quiet.battery_since < quiet.since:
        query = select(heard, d.id).where(*rules, on_battery)
        late += _newest(session, query, after=now - quiet.battery_since)
    if late:
        yield Trouble("silent", count_devices(session, rules), max(late))


def _newest(session: Session, query: Select[Any], *, after: timedelta = timedelta(0)) -> list[Came]:
    """Who came last, `after` the moment that the query gives, if anybody did."""
    at: ColumnElement[Any]
    at, device = query.selected_columns
    found = session.execute(query.order_by(at.desc(), device.desc()).limit(1)).first()
    return [] if found is None else [Came(found[0] + after, found[1])]

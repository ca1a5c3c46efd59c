"""Tell a device's events and windows that are new from those that came before.

A device sends each until it is acknowledged, and counts them; what its count has passed is known.
Where its count begins anew (a lost journal, another machine with the same key, a start of its agent
under which it may count otherwise), nothing is known by its number alone: then an event is the same
as one that is stored if all of it is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session

from pilotwave_protocol.fields import ROOM
from pilotwave_protocol.messages.check_in import CheckIn, DeviceEvent, MetricReport
from pilotwave_server.db import insert_missing
from pilotwave_server.devices.report_tables import DeviceEventRow
from pilotwave_server.telemetry import boots
from pilotwave_server.telemetry.freshness import Fresh

_MAX_RUN = 2**30  # then runs are counted from 0; an event of both would have to be stored still
Key = tuple[object, ...]


@dataclass(frozen=True)
class Count:
    """The events and windows of a check-in that its count has not passed. `again` are the numbers
    of those events that another count had before."""

    device: Row[Any]
    plain_seq: int
    event_run: int
    acked_event: int
    acked_window: int
    events: list[DeviceEvent]
    windows: list[MetricReport]

    @property
    def again(self) -> tuple[int, list[int]] | None:
        """The device's id, and the numbers that may be stored already."""
        numbers = [e.id for e in self.events if e.id <= self.device.top_event]
        return (self.device.id, numbers) if numbers else None


def count_of(device: Row[Any], check_in: CheckIn, fresh: Fresh) -> Count:
    """Return what of a check-in is new by its number."""
    # a count that has no room left keeps nothing out
    anew = fresh.anew or boots.after(device.boots, check_in.boot).changed
    anew = anew or device.acked_event >= ROOM
    event = 0 if anew else device.acked_event
    window = 0 if fresh.anew or device.acked_window >= ROOM else device.acked_window
    events = {e.id: e for e in check_in.events if e.id > event}
    windows = {w.id: w for w in check_in.metrics if w.id > window}
    return Count(
        device,
        plain_seq=fresh.plain_seq,
        event_run=(device.event_run + anew) % _MAX_RUN,
        acked_event=event,
        acked_window=window,
        events=[events[id] for id in sorted(events)],
        windows=[windows[id] for id in sorted(windows)],
    )


def event_key(device_id: int, e: Any) -> Key:
    """Return what makes an event what it is; `e` is a reported or a stored one."""
    number = e.id if isinstance(e, DeviceEvent) else e.number
    return device_id, number, e.at, e.kind, e.model, e.version, e.reason, e.detail


def stored_events(session: Session, wanted: Sequence[tuple[int, list[int]] | None]) -> set[Key]:
    """Return the keys of stored events with these numbers. No statement where there are none."""
    e = DeviceEventRow
    found: set[Key] = set()
    for pair in wanted:
        if pair is None:
            continue
        device, numbers = pair
        columns = (e.number, e.at, e.kind, e.model, e.version, e.reason, e.detail)
        query = select(*columns).where(e.device_id == device, e.number.in_(numbers))
        found |= {event_key(device, row) for row in session.execute(query)}
    return found


def event_rows(
    device: Row[Any], run: int, events: Iterable[DeviceEvent], *, now: datetime
) -> list[dict[str, Any]]:
    """Return rows for events of the device's count `run`."""
    return [
        {
            "device_id": device.id,
            "generation": device.generation + run,
            "number": e.id,
            "received_at": now,
            "at": e.at,
            "model": e.model,
            "version": e.version,
            "kind": e.kind,
            "reason": e.reason,
            "detail": e.detail,
        }
        for e in events
    ]


def add_events(session: Session, rows: list[dict[str, Any]]) -> None:
    """Store events; one whose number its count has given already is passed over."""
    insert_missing(session, DeviceEventRow, rows, unique=["device_id", "generation", "number"])

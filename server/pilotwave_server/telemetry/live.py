"""Keep what devices report of versions in use: by device, model, version and metric, all merged.

Of each metric the version in use and the one before it are kept. A device may have `MAX_ROWS` such
rows; windows of what goes beyond are acknowledged and dropped, so that no device fills the table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, select, tuple_
from sqlalchemy.orm import Session

from pilotwave_protocol.messages.check_in import MetricReport
from pilotwave_protocol.sketch import Sketch
from pilotwave_server.db import upsert
from pilotwave_server.telemetry.course import extended
from pilotwave_server.telemetry.tables import DeviceMetricRow

MAX_ROWS = 64
_COLUMNS = DeviceMetricRow.__table__.c


class NewWindow(NamedTuple):
    """A window that was stored. `number` counts those of its version on the device, from 1.

    `before` is all of this version before the window, `past` all of the version that the device had
    before this one. `start` and `end` are by the device's own clock.
    """

    device_id: int
    model: str
    version: str
    metric: str
    number: int
    sketch: Sketch
    before: Sketch | None
    past: Sketch | None
    start: datetime
    end: datetime


class _Key(NamedTuple):
    device_id: int
    model: str
    version: str
    metric: str


class _Kept(NamedTuple):
    sketch: Sketch
    windows: int
    points: list[list[float]]
    updated_at: datetime


def store_windows(
    session: Session, windows: Iterable[tuple[int, MetricReport]], *, now: datetime
) -> list[NewWindow]:
    """Merge windows, each with its device's number, in the order given. At most three statements,
    none without a window."""
    windows = list(windows)
    if not windows:
        return []
    book = _Book(session, {device for device, _ in windows})
    taken = (book.take(device, window, now) for device, window in windows)
    found = [window for window in taken if window is not None]
    book.write(session)
    return found


class _Book:
    """The devices' metrics as they are stored and as they shall be."""

    def __init__(self, session: Session, devices: set[int]) -> None:
        self._kept: dict[_Key, _Kept] = {}
        self._versions: dict[tuple[int, str, str], list[_Key]] = defaultdict(list)
        self._count: dict[int, int] = defaultdict(int)
        self._changed: set[_Key] = set()
        mine = select(*_COLUMNS).where(_COLUMNS.device_id.in_(devices))
        for row in session.execute(mine.order_by(_COLUMNS.updated_at)):
            key = _Key(row.device_id, row.model, row.version, row.metric)
            self._put(
                key, _Kept(Sketch.from_plain(row.sketch), row.windows, row.points, row.updated_at)
            )
        self._stored = set(self._kept)

    def take(self, device: int, report: MetricReport, now: datetime) -> NewWindow | None:
        """Merge one window. None: the device has too many metrics."""
        key = _Key(device, report.model, report.version, report.metric)
        known = self._kept.get(key)
        if known is None and self._count[device] >= MAX_ROWS:
            return None
        versions = self._versions[device, report.model, report.metric]
        others = [other for other in versions if other != key]
        merged = Sketch()
        if known is not None:
            merged.merge(known.sketch)
        merged.merge(report.sketch)
        number = known.windows + 1 if known else 1
        points = extended(
            known.points if known else (),
            report.sketch,
            begin=report.start,
            end=report.end,
            now=now,
        )
        self._put(key, _Kept(merged, number, points, now))
        self._changed.add(key)
        for other in others[:-1]:
            self._drop(other)
        return NewWindow(
            *key,
            number,
            report.sketch,
            before=known.sketch if known else None,
            past=self._kept[others[-1]].sketch if others else None,
            start=report.start,
            end=report.end,
        )

    def _put(self, key: _Key, kept: _Kept) -> None:
        """Keep it as what came last."""
        if key in self._kept:
            self._drop(key)
        self._kept[key] = kept
        self._versions[key.device_id, key.model, key.metric].append(key)
        self._count[key.device_id] += 1

    def _drop(self, key: _Key) -> None:
        del self._kept[key]
        self._versions[key.device_id, key.model, key.metric].remove(key)
        self._count[key.device_id] -= 1

    def write(self, session: Session) -> None:
        """Store what changed and remove what is kept no more."""
        changed = sorted(self._changed & self._kept.keys())
        upsert(
            session,
            DeviceMetricRow,
            [
                {
                    **key._asdict(),
                    "sketch": self._kept[key].sketch.to_plain(),
                    "windows": self._kept[key].windows,
                    "points": self._kept[key].points,
                    "updated_at": self._kept[key].updated_at,
                }
                for key in changed
            ],
        )
        gone = sorted(self._stored - self._kept.keys())
        if gone:
            columns = tuple_(*(_COLUMNS[name] for name in _Key._fields))
            session.execute(
                delete(DeviceMetricRow).where(columns.in_(gone)),
                execution_options={"synchronize_session": False},
            )

"""The fleet at a glance: counts over all devices, taken once every few seconds and kept.

Whoever asks while the counts are old gets the old ones at once and has new ones made for the next;
where nobody asked for long, the first waits for new ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from pilotwave_server.attention.service import Item, list_items
from pilotwave_server.context import Context
from pilotwave_server.dashboard.charts import tone_of
from pilotwave_server.devices import conflicts
from pilotwave_server.devices.service import count_by_state, count_devices, count_failing
from pilotwave_server.devices.silence import silence
from pilotwave_server.inventory.finding import DeviceFilter, matching
from pilotwave_server.registry.service import counters
from pilotwave_server.rollouts.operate.present import summary
from pilotwave_server.rollouts.operate.queries import group_names
from pilotwave_server.rollouts.operate.views import RolloutSummary
from pilotwave_server.rollouts.tables import RolloutRow
from pilotwave_server.telemetry.distribution import count_now

T = TypeVar("T")
KEEP = timedelta(seconds=5)
STALE = timedelta(seconds=30)
AT_MOST = 20
UNDER_WAY = ("running", "rolling_back", "scheduled")
ONLINE = DeviceFilter(standing="online")


@dataclass(frozen=True)
class Overview:
    """`versions` are (model, version, devices); `failing` counts devices with a failed model."""

    at: datetime
    states: dict[str, int] = field(default_factory=dict)
    online: int = 0
    silent: int = 0
    failing: int = 0
    conflicts: int = 0
    tones: dict[tuple[str, str], int] = field(default_factory=dict)
    versions: list[tuple[str, str, int]] = field(default_factory=list)
    attention: list[Item] = field(default_factory=list)


class Kept(Generic[T]):
    """A value that is made anew at most once every `keep`."""

    def __init__(self, make: Callable[[], T], *, keep: timedelta = KEEP) -> None:
        self._make = make
        self._keep = keep
        self._value: T | None = None
        self._until: datetime | None = None
        self._lock = threading.Lock()

    def get(self, now: datetime) -> T:
        """The value, perhaps a little old; anew where it is `STALE`."""
        if self._value is None or (self._until is not None and now >= self._until + STALE):
            with self._lock:
                if self._value is None or self._until is None or now >= self._until:
                    self._renew(now)
        elif self._until is not None and now >= self._until and self._lock.acquire(blocking=False):
            threading.Thread(target=self._renew_and_release, args=(now,), daemon=True).start()
        assert self._value is not None
        return self._value

    def _renew(self, now: datetime) -> None:
        self._value = self._make()
        self._until = now + self._keep

    def _renew_and_release(self, now: datetime) -> None:
        try:
            self._renew(now)
        finally:
            self._lock.release()


def take(context: Context) -> Overview:
    """Count anew."""
    now = context.clock()
    with context.db.read() as session:
        states = count_by_state(session)
        quiet = silence(context.settings, now)
        online = count_devices(session, matching(session, ONLINE, quiet))
        return Overview(
            at=now,
            states=states,
            online=online,
            silent=states.get("enrolled", 0) - online,
            failing=count_failing(session),
            conflicts=conflicts.count(session),
            tones={key: tone_of(counter) for key, counter in counters(session).items()},
            versions=_versions(session),
            attention=list_items(session, now, quiet),
        )


def _versions(session: Session) -> list[tuple[str, str, int]]:
    return sorted(count_now(session), key=lambda row: (row[0], -row[2]))


def rolling_out(session: Session) -> list[RolloutSummary]:
    """The rollouts under way, the newest first. Not kept: operators look for what they did."""
    r = RolloutRow
    query = select(r).where(r.state.in_(UNDER_WAY)).order_by(r.id.desc()).limit(AT_MOST)
    rows = list(session.scalars(query))
    names = group_names(session, rows)
    return [summary(row, names[row.group_id]) for row in rows]

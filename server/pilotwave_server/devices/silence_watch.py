"""Decide who looks for silent devices when, and whose silence is the server's own. Pure but for
`claim`.

Of all server processes one looks in each minute: the one that first writes that it does. From what
is written there it is known when nobody looked, because no server ran, the database was away or was
restored: devices could not be heard of then. A device gets one interval's grace after such a time
if that was as long as its interval; after a shorter one it has reported again before it is silent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import update

from pilotwave_server.db import Database
from pilotwave_server.devices.tables import SilenceWatchRow
from pilotwave_server.settings import DAY_S

TICK_S = 60
LOOK_S = TICK_S / 2
"""How often each process sees whether a minute has begun."""
GAP = timedelta(seconds=2 * TICK_S)
LONGEST = timedelta(seconds=DAY_S)
"""The longest interval that a device is told: a longer stop is no other."""


@dataclass(frozen=True)
class Watch:
    """When the fleet was last looked at, and between when and when it last was not."""

    looked_at: datetime
    away_from: datetime
    away_until: datetime

    def at(self, now: datetime) -> Watch:
        """What is known after another look."""
        if abs(now - self.looked_at) <= GAP:
            return replace(self, looked_at=now)
        began = self.looked_at
        # that time's grace has not ended for all: a short one after it must not cut it short
        if self.looked_at - self.away_until < self.away_until - self.away_from:
            began = self.away_from
        return Watch(now, min(max(began, now - LONGEST), now), now)

    def excuses(self, told: timedelta, *, late: timedelta, now: datetime) -> bool:
        """Whether a device that was told this may be silent because nobody heard it."""
        was_away = self.away_until - self.away_from
        return was_away >= told and now < self.away_until + told + late


def claim(db: Database, *, now: datetime) -> Watch | None:
    """Take this minute's look, and say what is known with it; None: another process has it."""
    w = SilenceWatchRow
    with db.read() as session:
        row = session.get_one(w, 1)
    if _minute(row.looked_at) == _minute(now):
        return None
    watch = Watch(row.looked_at, row.away_from, row.away_until).at(now)
    taken = update(w).where(w.id == 1, w.looked_at == row.looked_at).values(vars(watch))
    with db.write() as session:
        done = session.execute(taken, execution_options={"synchronize_session": False})
        won = bool(done.rowcount)  # type: ignore[attr-defined]  # an update's result has it
    return watch if won else None


def _minute(at: datetime) -> int:
    return int(at.timestamp()) // TICK_S

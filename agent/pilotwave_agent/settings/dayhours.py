"""Hours of the day on a device's own clock: `22:00-06:00`, on all days or on some.

They hold whenever the clock shows a time of theirs, so on the night that clocks change they end at
six o'clock as on any other. Hours that pass midnight belong to the day on which they begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo

from pilotwave_agent.settings.walltime import DAY_S, changes, instants, wall

_AHEAD_DAYS = 9


@dataclass(frozen=True)
class DayHours:
    """From `begin` up to `end`, minutes of the day; `days` on which they begin, Sunday is 0.

    Where `end` is not after `begin`, they end on the next day.
    """

    begin: int
    end: int
    days: frozenset[int] = frozenset(range(7))

    def hold(self, moment: datetime) -> bool:
        """Say whether a clock that shows `moment` is within them."""
        minute = moment.hour * 60 + moment.minute
        today, yesterday = moment.isoweekday() % 7, (moment.isoweekday() - 1) % 7
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        begun = today in self.days and minute >= self.begin
        return begun or (yesterday in self.days and minute < self.end)

    def open_in(self, now: float, zone: tzinfo) -> float | None:
        """Return the seconds until they begin: 0 within them, None if they never do.

        `now` is in seconds since the epoch.
        """
        if self.hold(wall(now, zone)):
            return 0.0
        coming = sorted(at for at in self._may_begin(now, zone) if at > now)
        first = next((at for at in coming if self.hold(wall(at, zone))), None)
        return None if first is None else max(first - now, 1.0)

    def _may_begin(self, now: float, zone: tzinfo) -> Iterator[float]:
        """When clocks come to the beginning, and when they are changed."""
        today = wall(now, zone).date()
        at = time(self.begin // 60, self.begin % 60)
        for days in range(-1, _AHEAD_DAYS):
            yield from instants(datetime.combine(today + timedelta(days=days), at), zone)
        yield from changes(now, now + _AHEAD_DAYS * DAY_S, zone)

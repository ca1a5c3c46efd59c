"""Turn the times that clocks on walls show into instants, also where the clocks of a zone change.

An instant is a number of seconds since the epoch, so that the time between two of them is what
passes. A wall time is a naive `datetime`: it comes once on most days, twice where clocks go back,
and never where they go forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - as clocks on walls, it knows no zone
_STEP_S = 6 * 3600.0
DAY_S = 86_400.0


def wall(instant: float, zone: tzinfo) -> datetime:
    """Return what clocks in `zone` show."""
    return datetime.fromtimestamp(instant, timezone.utc).astimezone(zone).replace(tzinfo=None)


def offset_at(instant: float, zone: tzinfo) -> float:
    """Return by how many seconds clocks in `zone` are ahead of UTC."""
    found = datetime.fromtimestamp(instant, timezone.utc).astimezone(zone).utcoffset()
    return (found or timedelta()).total_seconds()


def seconds(moment: datetime) -> float:
    """Return a naive time as seconds since the epoch, as if it were UTC."""
    return (moment - EPOCH).total_seconds()


def instants(moment: datetime, zone: tzinfo) -> tuple[float, ...]:
    """Return when clocks show this time: once, twice (the earlier first), or never."""
    early, late = _offsets(moment, zone)
    if early < late:
        return ()
    found = seconds(moment) - early, seconds(moment) - late
    return found if early > late else found[:1]


def moved_on(moment: datetime, zone: tzinfo) -> float:
    """Return the instant at which clocks passed over a time that they never show."""
    before, after = _offsets(moment, zone)
    low, high = seconds(moment) - after, seconds(moment) - before
    return _changes_at(low, high, zone)


def changes(since: float, until: float, zone: tzinfo) -> Iterator[float]:
    """Yield the instants after `since` and up to `until` from which clocks show another offset."""
    low = since
    while low < until:
        high = min(low + _STEP_S, until)
        if offset_at(low, zone) != offset_at(high, zone):
            yield _changes_at(low, high, zone)
        low = high


def _offsets(moment: datetime, zone: tzinfo) -> tuple[float, float]:
    """The offset before and after a change around this time; equal where there is none."""
    both = (moment.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    first, second = ((offset or timedelta()).total_seconds() for offset in both)
    return first, second


def _changes_at(low: float, high: float, zone: tzinfo) -> float:
    """Return the first whole second after `low` that has another offset than `low` has."""
    before = offset_at(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(middle, zone) == before:
            low = middle
        else:
            high = middle
    return float(high // 1)

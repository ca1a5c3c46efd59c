"""Know the earliest moment it can be, whatever the device's clock says.

A clock that stands still or falls back to 1970 would keep expired metadata alive for ever. It
cannot be earlier than the release of this agent, nor than the moment at which the timestamp was
signed that this device trusts. There is one floor, and it rests on the key that signed the
timestamp: whoever keeps it (`memory`) drops it when root replaces that key.

A floor must not outlive a mistake, either: a server whose clock once ran ahead, or a thief of its
key, would stop every install until that date. So the newest timestamp may lower it: where this
device's own clock does not contradict it, and in any case where the two words of one key are
further apart than `FLOOR_LEAD`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

# Rounded down to a year, so that a release never judges a slightly slow clock.
BUILD_FLOOR = datetime(2026, 1, 1, tzinfo=timezone.utc)
FLOOR_LEAD = timedelta(days=7)
"""How far the floor may lead the newest timestamp, on a device whose clock is behind both."""
CLOCK_SLACK = timedelta(minutes=5)


def next_floor(floor: datetime | None, signed: datetime | None, now: datetime) -> datetime | None:
    """Return the floor after a newer timestamp: `floor` is the one so far, `signed` when the new
    one says it was signed, `now` this device's own clock."""
    if floor is None or signed is None:
        return signed or floor
    clock_agrees = now >= signed - CLOCK_SLACK
    return signed if clock_agrees or floor - signed > FLOOR_LEAD else max(floor, signed)


def earliest(floor: datetime | None, build: datetime = BUILD_FLOOR) -> datetime:
    """Return the earliest moment that it can be now."""
    return build if floor is None else max(build, floor)

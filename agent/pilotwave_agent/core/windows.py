"""Tell how long it is until a window opens that begins by cron and lasts some seconds.

A window is reckoned in instants, so a duration is time that passes, whatever clocks do. Where they
change, a window begins as jobs of Debian's cron do: one at fixed times (neither its minute nor its
hour starts with `*`) begins once where its time comes twice, at the first, and right after the
missing time where it never comes; any other begins whenever clocks show its time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo

from cronsim import CronSim, CronSimError

from pilotwave_agent.settings.walltime import DAY_S, EPOCH, instants, moved_on, offset_at, seconds
from pilotwave_protocol.errors import PilotwaveError

_FAR_S = 366 * 5 * DAY_S
_MINUTE = timedelta(minutes=1)


class BadWindow(PilotwaveError):
    """A window that no device can read."""

    code = "bad_window"


def open_in(cron: str, duration_s: float, now: datetime) -> float | None:
    """Return the seconds until the window opens: 0 while it is open, None if it never does.

    `now` is aware, in the zone by whose clocks the window begins. Raises `BadWindow`.
    """
    fields, zone, instant = cron.split(), now.tzinfo or timezone.utc, now.timestamp()
    try:
        if len(fields) != 5:
            raise CronSimError("expected five fields")
        fixed = not (fields[0].startswith("*") or fields[1].startswith("*"))
        if _has_begun(cron, instant, duration_s, zone, fixed=fixed):
            return 0.0
        begins = _begins(cron, instant, zone, fixed=fixed)
    except CronSimError as e:
        raise BadWindow(f"{cron!r:.60} is no time of cron") from e
    if begins is None or begins - instant > _FAR_S:
        return None
    return max(begins - instant, 1.0)


def _has_begun(cron: str, now: float, duration_s: float, zone: tzinfo, *, fixed: bool) -> bool:
    """Say whether it began within the last `duration_s` seconds."""
    since = now - duration_s
    low, high = _offsets(since - DAY_S, now + DAY_S, zone)
    for begun in _walls(cron, now + high, back=True):
        if seconds(begun) <= since + low:
            return False
        if any(since < at <= now for at in _starts(begun, zone, fixed=fixed)):
            return True
    return False


def _begins(cron: str, now: float, zone: tzinfo, *, fixed: bool) -> float | None:
    """Return the first instant after `now` at which it begins."""
    low, _ = _offsets(now - DAY_S, now + DAY_S, zone)
    best = math.inf
    for coming in _walls(cron, now + low - 1):
        if seconds(coming) - now > _FAR_S + DAY_S:
            break
        starts = _starts(coming, zone, fixed=fixed)
        best = min([best, *(at for at in starts if at > now)])
        if starts and starts[0] >= best:
            break  # the first time that clocks show a later time is later
    return best if best < math.inf else None


def _walls(cron: str, at: float, *, back: bool = False) -> Iterator[datetime]:
    """Yield the wall times that `cron` names, from `at` (a naive time's seconds) on or back."""
    start = EPOCH + timedelta(seconds=int(at // 1))
    if back:  # cronsim begins strictly before or after
        start += _MINUTE
    return CronSim(cron, start, reverse=back)


def _starts(moment: datetime, zone: tzinfo, *, fixed: bool) -> tuple[float, ...]:
    found = instants(moment, zone)
    if not fixed:
        return found
    return found[:1] or (moved_on(moment, zone),)


def _offsets(since: float, until: float, zone: tzinfo) -> tuple[float, float]:
    """Return the least and the greatest offset in this time."""
    days = math.ceil((until - since) / DAY_S)
    found = [offset_at(since + n * DAY_S, zone) for n in range(days + 1)]
    return min(found), max(found)

"""Tell how long it is until a window opens that begins by cron and lasts some seconds.

Times are walls' times in a zone: on the night that a clock jumps, a window that would begin in the
missing hour begins right after it. A duration is time that passes, whatever clocks do.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

from pilotwave_protocol.errors import PilotwaveError

_FAR = timedelta(days=366 * 5)


class BadWindow(PilotwaveError):
    """A window that no device can read."""

    code = "bad_window"


def open_in(cron: str, duration_s: float, now: datetime) -> float | None:
    """Return the seconds until the window opens: 0 while it is open, None if it never does.

    `now` is aware. Raises `BadWindow`.
    """
    try:
        # cronsim looks strictly before and after a moment; one that begins now counts as begun
        begun = next(CronSim(cron, now + timedelta(minutes=1), reverse=True), None)
        coming = next(CronSim(cron, now), None)
    except CronSimError as e:
        raise BadWindow(f"{cron!r:.60} is no time of cron") from e
    stamp = now.timestamp()
    # seconds since the epoch: subtracting two times of one zone would count a changed hour wrong
    if begun is not None and 0 <= stamp - begun.timestamp() < duration_s:
        return 0.0
    if coming is None or coming - now > _FAR:
        return None
    return max(coming.timestamp() - stamp, 1.0)

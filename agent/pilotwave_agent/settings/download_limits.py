"""What the device's own settings allow downloads: `[limits]` in agent.toml.

    [limits]
    max_rate_kbps = 2000
    windows = ["22:00-06:00", "sat,sun 08:00-24:00"]    # in the device's own time
    on_metered = "wait"

They hold beside what an order's conditions say, and no order can lift them. They hold back fetching
alone: what is here is tried and switched to at any time, and a device goes on polling. When they
hold is `conditions`'s to judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pilotwave_agent.settings.dayhours import DayHours
from pilotwave_protocol.fields import Fields

KBIT = 125  # bytes
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WINDOW = re.compile(r"(?:([a-z]{3}(?:[,-][a-z]{3})*) )?(\d\d):(\d\d)-(\d\d):(\d\d)")
_EXPECTED = "times such as 22:00-06:00 or mon-fri 20:00-24:00"


@dataclass(frozen=True)
class OwnLimits:
    """`max_rate_kbps` in kilobits per second (0: no cap); `windows` are hours of the day; with
    `waits_on_metered` nothing is fetched over a network that is known to be metered."""

    max_rate_kbps: int = 0
    windows: tuple[DayHours, ...] = field(default=())
    waits_on_metered: bool = False

    @property
    def max_rate(self) -> int:
        """The cap in bytes per second, 0: none."""
        return self.max_rate_kbps * KBIT

    def __bool__(self) -> bool:
        """Whether fetching may ever be held back."""
        return bool(self.windows or self.waits_on_metered)


def read_limits(f: Fields) -> OwnLimits:
    """Read the section."""
    on_metered = f.text("on_metered", default="fetch")
    if on_metered not in ("fetch", "wait"):
        raise f.fail("on_metered", "one of fetch, wait", on_metered)
    found = OwnLimits(
        max_rate_kbps=f.integer("max_rate_kbps", default=0),
        windows=read_windows(f),
        waits_on_metered=on_metered == "wait",
    )
    f.done()
    return found


def read_windows(f: Fields) -> tuple[DayHours, ...]:
    """Read `windows`, hours of the day."""
    return tuple(_window(f, text) for text in f.texts("windows", limit=16, default=[]))


def _window(f: Fields, text: str) -> DayHours:
    """Read `mon-fri 20:00-06:00`."""
    match = _WINDOW.fullmatch(text.lower())
    if not match:
        raise f.fail("windows", _EXPECTED, text)
    days, *clock = match.groups()
    begin_h, begin_m, end_h, end_m = map(int, clock)
    begin, end = begin_h * 60 + begin_m, end_h * 60 + end_m
    named = re.findall(r"[a-z]+", days or "")
    if begin_h > 23 or begin_m > 59 or end_m > 59 or end > 1440 or not {*named} <= {*_DAYS}:
        raise f.fail("windows", _EXPECTED, text)
    return DayHours(begin, end, _numbers(days)) if days else DayHours(begin, end)


def _numbers(days: str) -> frozenset[int]:
    """Turn `fri-mon,wed` into numbers, 0, 1, 3, 5 and 6."""
    found: set[int] = set()
    for part in days.split(","):
        ends = [_DAYS.index(day) for day in part.split("-")]
        span = (ends[-1] - ends[0]) % 7
        found |= {(ends[0] + n) % 7 for n in range(span + 1)}
    return frozenset(found)

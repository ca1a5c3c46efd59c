"""Lengths of time as people type them and are shown them: `90s`, `30m`, `1h30m`, `2w`."""

from __future__ import annotations

import re

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MOST_S = 365_250 * UNITS["d"]
"""A thousand years: a moment so far away can still be written."""
_DURATION = re.compile(r"(?:[0-9]{1,9}[smhdw])+")
_PART = re.compile(r"([0-9]+)([smhdw])")


def read_duration(text: str) -> int | None:
    """Return the seconds, 0 among them, or None where the text is no length of time."""
    if not _DURATION.fullmatch(text):
        return None
    seconds = sum(int(count) * UNITS[unit] for count, unit in _PART.findall(text))
    return seconds if seconds <= MOST_S else None


def span(seconds: int) -> str:
    """Write seconds as they may be typed: 5400 is `1h30m`."""
    parts, left = [], seconds
    for unit in "dhms":
        count, left = divmod(left, UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"

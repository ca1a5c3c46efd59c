"""Decide whether an application's device has room for one more call of a candidate.

A trial takes at most its share of one core, nothing while the device is hot or its battery is low,
and nothing while the application itself has more to do than it can.
"""

from __future__ import annotations

from pathlib import Path

from pilotwave_agent.hardware.power import is_hot, is_low

_LOOK_EVERY_S = 10.0
_SAVED_S = 10.0


class ShadowLimits:
    """Times are seconds of one clock. `root` stands in for `/`."""

    def __init__(self, cpu: float, now: float, root: Path = Path("/")) -> None:
        self._cpu, self._root = cpu, root
        self._used, self._since = 0.0, now
        self._look_at = now
        self.spared = False

    def used(self, cpu_s: float) -> None:
        """Count the processor time that a call took."""
        self._used += cpu_s

    def has_room(self, now: float) -> bool:
        """Say whether another call may be made. What was not used is kept for a few seconds."""
        if self.spared:
            return False
        self._since = max(self._since, now - _SAVED_S - self._used / self._cpu)
        return self._used <= self._cpu * (now - self._since)

    def look(self, now: float) -> None:
        """Look at heat and battery, now and then."""
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            self.spared = is_hot(self._root) or is_low(self._root)

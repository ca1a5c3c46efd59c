"""How many windows of a device gates look at, and which devices' they are. In memory.

A device may send what it likes, whenever it likes. What a gate hears of it is bounded: `BURST`
windows at first, then one in each period, by the clock of the server and by the window's own time.
Where an arm has more devices than a gate needs, a panel of them is heard, chosen by a hash that no
device can foresee or work towards: it is keyed with the rollout's own secret draw.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b

PERIOD_S = 900.0
BURST = 12
LATE_S = 6 * 3600.0  # an older window tells of other times
AHEAD_S = 300.0  # a window that begins later than now is of a clock that is wrong
END_AHEAD_S = 1800.0
_WHOLE = 2**32


def own_time(start: datetime, end: datetime, *, moment: float) -> float | None:
    """Return when a window ended by its own clock, in seconds since 1970, never after `moment`;
    None if it begins in the future or ended too long ago to tell of now."""
    begun, ended = start.timestamp(), end.timestamp()
    if begun > moment + AHEAD_S or ended > moment + END_AHEAD_S or ended < moment - LATE_S:
        return None
    return min(ended, moment)


def phase_of(secret: bytes, name: str) -> int:
    """Return the place of a device in a panel, from 0 to 2^32 - 1."""
    return int.from_bytes(blake2b(name.encode(), key=secret, digest_size=4).digest(), "big")


@dataclass(slots=True)
class _Account:
    """What a device has left of its windows at a moment."""

    left: float
    since: float


@dataclass
class Panel:
    """The devices of an arm whose windows are kept: a share of them by hash, always the same ones.
    It is halved each time more devices than `most` are heard within a period, however many windows
    each of them sends."""

    most: int
    share: int = _WHOLE
    since: float = 0.0
    heard: set[int] = field(default_factory=set)
    accounts: dict[int, _Account] = field(default_factory=dict)

    def takes(self, device: int, phase: int, moment: float) -> bool:
        """Say whether a window of the device of this place is kept, and count it."""
        if phase >= self.share:
            return False
        self._begin_period(moment)
        if device not in self.heard and len(self.heard) >= self.most:
            self.share //= 2
            self.heard.clear()
            return phase < self.share and self.takes(device, phase, moment)
        self.heard.add(device)
        return self._pays(device, moment)

    def _begin_period(self, moment: float) -> None:
        if not 0 <= moment - self.since < PERIOD_S:
            self.since = moment
            self.heard.clear()
            full = moment - BURST * PERIOD_S
            for device in [d for d, a in self.accounts.items() if a.since < full]:
                del self.accounts[device]

    def _pays(self, device: int, moment: float) -> bool:
        account = self.accounts.get(device)
        if account is None:
            account = self.accounts[device] = _Account(BURST, moment)
        earned = max(0.0, moment - account.since) / PERIOD_S
        account.left = min(BURST, account.left + earned)
        account.since = moment
        if account.left < 1:
            return False
        account.left -= 1
        return True

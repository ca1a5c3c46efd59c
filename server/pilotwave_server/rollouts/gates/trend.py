"""What changes for all at a time (the hour, the load, the season): the median over the devices on
the old version, one voice for each, however many windows it sends.

A voice is a device's latest window. It counts until the device's next one, or until it is older
than `KEPT_S` or three times as long as the window itself, so that devices that report once a day
are heard like those that report each minute. Half of the devices would have to lie to move the
trend beyond what honest devices report; a quarter of them move it by less than half of what honest
devices differ by.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush
from typing import NamedTuple

KEPT_S = 5400.0
_ENOUGH = 5  # fewer devices say nothing
_KEPT_LEAST = 11  # so many voices stay, however old they are
_SLOT_S = 900.0  # late windows find the trend of their own time in steps of this
_LENGTHS = 3
_SLOTS_KEPT = 4096


class _Voice(NamedTuple):
    change: float
    at: float
    number: int


class Trend:
    """The trend as windows come in; times are in seconds since 1970, by the windows' own ends."""

    def __init__(self) -> None:
        self._voices: dict[int, _Voice] = {}
        self._ordered: list[float] = []
        self._leaving: list[tuple[float, int, int]] = []
        self._number = 0
        self._head = float("-inf")
        self._then: dict[int, float] = {}

    def at(self, moment: float) -> float:
        """Return the trend at a time. That of a late window is the one of its own time."""
        slot = int(moment // _SLOT_S)
        if slot < self._head // _SLOT_S:
            return self._then.get(slot, self._now())
        return self._now()

    def add(self, device: int, change: float, moment: float, seconds: float) -> None:
        """Hear one window of the old version that ended at `moment` and is `seconds` long."""
        known = self._voices.get(device)
        if known is not None and known.at > moment:
            return
        if known is not None:
            self._remove(known)
        self._number += 1
        self._voices[device] = _Voice(change, moment, self._number)
        insort(self._ordered, change)
        until = moment + max(KEPT_S, _LENGTHS * seconds)
        heappush(self._leaving, (until, device, self._number))
        self._head = max(self._head, moment)
        self._let_go()
        self._remember()

    def _now(self) -> float:
        count = len(self._ordered)
        return self._ordered[count // 2] if count >= _ENOUGH else 0.0

    def _remember(self) -> None:
        self._then[int(self._head // _SLOT_S)] = self._now()
        if len(self._then) > _SLOTS_KEPT:
            del self._then[next(iter(self._then))]

    def _let_go(self) -> None:
        while self._leaving and self._leaving[0][0] < self._head:
            _, device, number = self._leaving[0]
            voice = self._voices.get(device)
            if voice is not None and voice.number == number:
                if len(self._voices) <= _KEPT_LEAST:
                    return
                self._remove(self._voices.pop(device))
            heappop(self._leaving)

    def _remove(self, voice: _Voice) -> None:
        del self._ordered[bisect_left(self._ordered, voice.change)]

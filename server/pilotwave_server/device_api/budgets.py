"""What one device may report: so many check-ins, events and windows, whatever it says of itself.

A report over the budget of check-ins is refused with a time to come again (429), which agents heed;
nothing in it is lost. Of events and windows over theirs, the first are stored and acknowledged and
the rest wait on the device: the report itself is taken, and the device keeps its token.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar, Protocol, TypeVar

from pilotwave_protocol.messages.check_in import CheckIn
from pilotwave_server.buckets import Buckets
from pilotwave_server.errors import ServerError
from pilotwave_server.settings import Settings

BURST = 30
# A device that has news comes before its interval is over, but not many times within it.
PER_INTERVAL = 4
HOUR_S = 3600
LONGEST_S = 5.0
MOST_HELD = 2


class Numbered(Protocol):
    @property
    def id(self) -> int: ...


N = TypeVar("N", bound=Numbered)


class TooManyCheckIns(ServerError):
    """The device checks in more often than it may. Carries Retry-After."""

    status: ClassVar[int] = 429
    code: ClassVar[str] = "too_many_check_ins"
    title: ClassVar[str] = "Too many check-ins of this device"


class DeviceBudgets:
    """The budgets of all devices, by row number, in one server process. Called on its loop."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        per_second = max(
            settings.check_ins_per_minute / 60, PER_INTERVAL / settings.check_in_interval_s
        )
        hourly = float(settings.events_per_hour)
        self._clock = clock
        self._check_ins: Buckets[int] = Buckets(burst=BURST, per_second=per_second)
        self._events: Buckets[int] = Buckets(burst=hourly, per_second=hourly / HOUR_S)
        self._windows: Buckets[int] = Buckets(burst=hourly, per_second=hourly / HOUR_S)
        self._held: defaultdict[int, int] = defaultdict(int)

    def spend(self, device: int, check_in: CheckIn) -> CheckIn:
        """Return the report with what may be stored of it. Raises TooManyCheckIns."""
        wait = self._check_ins.take(device, self._clock())
        if wait:
            raise TooManyCheckIns(
                f"this device checks in too often: come again in {math.ceil(wait)} s",
                headers={"Retry-After": str(math.ceil(wait))},
            )
        events = self._first(self._events, device, check_in.events)
        windows = self._first(self._windows, device, check_in.metrics)
        if len(events) == len(check_in.events) and len(windows) == len(check_in.metrics):
            return check_in
        return replace(check_in, events=events, metrics=windows)

    def refund(self, device: int, check_in: CheckIn) -> None:
        """Give back what a report took that was not stored: it may be a replay, by anybody."""
        self._check_ins.refund(device, 1)
        self._events.refund(device, len(check_in.events))
        self._windows.refund(device, len(check_in.metrics))

    def _first(self, budget: Buckets[int], device: int, items: Sequence[N]) -> tuple[N, ...]:
        """The items with the lowest numbers, as many as there is room for; the rest come again."""
        if not items:
            return ()
        now = self._clock()
        room = min(len(items), max(int(budget.left(device, now)), 0))
        budget.charge(device, now, room)
        if room == len(items):
            return tuple(items)
        return tuple(sorted(items, key=lambda item: item.id)[:room])

    async def hold(self, device: int) -> bool:
        """Wait before a refusal is told, so that who does not heed it costs little. False: as many
        of the device's reports are being held already."""
        if self._held[device] >= MOST_HELD:
            return False
        self._held[device] += 1
        try:
            await asyncio.sleep(LONGEST_S)
        finally:
            self._held[device] -= 1
            if not self._held[device]:
                del self._held[device]
        return True

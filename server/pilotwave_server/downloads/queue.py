"""Whose turn it is to download: so many at once, the places shared fairly between sites.

A free place goes to the site that has the fewest downloads running, among equals to the one that
waited longest since its last turn; within a site, to the device whose turn is furthest back. So a
site with fifty devices takes no turn from a site with one. The queue is bounded: when it is full,
the longest site's newest has to come again later. In memory, for one process and its event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from pilotwave_server.blobs.flow import ReaderGone
from pilotwave_server.errors import Unavailable

WAIT_S = 4.0
"""An agent gives up on a server that is silent for 10 s: before that it is told to come again."""
LONGEST_S = 60
USUAL_S = 5.0


class DownloadsBusy(Unavailable):
    """All places for downloads are taken. Retry-After says when to come again; what has arrived
    of a file is gone on with."""

    code = "downloads_busy"
    title = "Too many downloads at once"


@dataclass(eq=False)
class _Waiter:
    site: str
    device: str
    turn: asyncio.Future[None]


class _Line:
    """Those of one site that wait, by device; the device that comes next stands first."""

    def __init__(self) -> None:
        self.devices: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self.length = 0


class FairQueue:
    """`most` downloads at once, `per_device` of them for one device, `waiting` in the queue; each
    waits `wait_s` seconds at most. `most_at` says how many may run at a site (0: as many as may run
    at all)."""

    def __init__(
        self,
        *,
        most: int,
        per_device: int,
        waiting: int,
        most_at: Callable[[str], int] = lambda site: 0,
        wait_s: float = WAIT_S,
    ) -> None:
        self._most, self._per_device, self._longest = most, per_device, waiting
        self._most_at, self._wait_s = most_at, wait_s
        self.running = 0
        self.waiting = 0
        self._at_site: Counter[str] = Counter()
        self._of_device: Counter[str] = Counter()
        self._lines: dict[str, _Line] = {}
        self._last_turn: dict[str, int] = {}
        self._turns = count(1)
        self._takes_s = USUAL_S

    def of_device(self, device: str) -> int:
        """How many downloads run for a device."""
        return self._of_device[device]

    async def enter(self, site: str, device: str, gone: asyncio.Future[Any]) -> None:
        """Return when the turn has come. DownloadsBusy; ReaderGone if `gone` comes first.

        Whoever got a turn calls `leave`.
        """
        if self._free(site, device):
            self._take(site, device)
            return
        waiter = self._join(site, device)
        try:
            await asyncio.wait(
                {waiter.turn, gone}, timeout=self._wait_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not waiter.turn.done():
                raise ReaderGone if gone.done() else self._busy(site)
            waiter.turn.result()
        except BaseException:
            self._abandon(waiter)
            raise

    def leave(self, site: str, device: str, took_s: float) -> None:
        """Give the place back, after so many seconds."""
        self._takes_s += (min(took_s, LONGEST_S) - self._takes_s) / 8
        self.running -= 1
        for counter, key in ((self._at_site, site), (self._of_device, device)):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]
        self._admit()

    # --- who may

    def _free(self, site: str, device: str) -> bool:
        return (
            self.running < self._most
            and self._at_site[site] < (self._most_at(site) or self._most)
            and self._of_device[device] < self._per_device
        )

    def _take(self, site: str, device: str) -> None:
        self.running += 1
        self._at_site[site] += 1
        self._of_device[device] += 1
        if len(self._last_turn) > 10_000:
            self._last_turn.clear()
        self._last_turn[site] = next(self._turns)

    def _admit(self) -> None:
        while self.running < self._most and (waiter := self._next()):
            self._remove(waiter)
            self._take(waiter.site, waiter.device)
            line = self._lines.get(waiter.site)
            if line is not None and waiter.device in line.devices:
                line.devices.move_to_end(waiter.device)
            waiter.turn.set_result(None)

    def _next(self) -> _Waiter | None:
        """The one whose turn it is, of those who may."""
        for site in sorted(self._lines, key=self._rank):
            for device, waiters in self._lines[site].devices.items():
                if self._free(site, device):
                    return waiters[0]
        return None

    def _rank(self, site: str) -> tuple[int, int]:
        return self._at_site[site], self._last_turn.get(site, 0)

    # --- waiting

    def _join(self, site: str, device: str) -> _Waiter:
        if self.waiting >= self._longest:
            self._make_room(site)
        waiter = _Waiter(site, device, asyncio.get_running_loop().create_future())
        line = self._lines.setdefault(site, _Line())
        line.devices.setdefault(device, deque()).append(waiter)
        line.length += 1
        self.waiting += 1
        return waiter

    def _make_room(self, site: str) -> None:
        """Send the newest of the longest line away, or refuse this site's if that is it."""
        longest = max(self._lines, key=lambda s: self._lines[s].length, default=site)
        mine = self._lines[site].length if site in self._lines else 0
        if longest == site or self._lines[longest].length <= mine + 1:
            raise self._busy(site)
        last = next(reversed(self._lines[longest].devices.values()))[-1]
        self._remove(last)
        last.turn.set_exception(self._busy(longest))

    def _abandon(self, waiter: _Waiter) -> None:
        """Take one out who waits no longer; a turn that came at that moment goes to another."""
        turn = waiter.turn
        if not turn.done():
            turn.cancel()
            self._remove(waiter)
        elif not turn.cancelled() and turn.exception() is None:
            self.leave(waiter.site, waiter.device, self._takes_s)

    def _remove(self, waiter: _Waiter) -> None:
        line = self._lines[waiter.site]
        waiters = line.devices[waiter.device]
        waiters.remove(waiter)
        line.length -= 1
        self.waiting -= 1
        if not waiters:
            del line.devices[waiter.device]
        if not line.devices:
            del self._lines[waiter.site]

    def _busy(self, site: str) -> DownloadsBusy:
        """Say when to come again: at once for a site that has nothing yet, so that it is seldom
        absent when a place becomes free; for others when the queue may have gone by."""
        ahead = self._takes_s * (self.waiting + 1) / self._most
        wait_s = 1 if not self._at_site[site] else min(max(round(ahead), 2), LONGEST_S)
        sentence = f"{self.running} downloads run and {self.waiting} wait here; come again in"
        return DownloadsBusy(f"{sentence} {wait_s} s", retry_after_s=wait_s)

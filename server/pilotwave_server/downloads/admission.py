"""Let devices download: each gets its turn, its site's and its own rate, and is counted.

All of it is in memory: no download waits for a database. The limits are one process's; where a
server has several, each gets its share, so that together they keep to what was set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from pilotwave_server.blobs.flow import WHOLE_PIECES, Flow
from pilotwave_server.downloads.counting import Counting, For
from pilotwave_server.downloads.pace import ByteRate, piece_of
from pilotwave_server.downloads.queue import DownloadsBusy, FairQueue
from pilotwave_server.downloads.sites import SiteLimit
from pilotwave_server.metrics import Metrics

LEAST_SHARE = 4096
"""A site's rate is shared by so many downloads at most that each gets this many bytes per second:
an agent gives up on a source that sends almost nothing."""
_KBIT = 125  # bytes


class Admission:
    """One process's downloads. The `processes` of this machine share what it is allowed
    (`total_kbps` 0: no limit), all those `of_fleet` that live what sites are."""

    def __init__(
        self,
        *,
        counting: Counting,
        metrics: Metrics,
        most: int,
        per_device: int,
        waiting: int,
        processes: int = 1,
        of_fleet: Callable[[], int] = lambda: 1,
        total_kbps: int = 0,
    ) -> None:
        self.counting, self.metrics = counting, metrics
        self.queue = FairQueue(
            most=max(most // processes, 1),
            per_device=per_device,
            waiting=waiting,
            most_at=lambda site: self._most_at.get(site, 0),
        )
        self._of_fleet = of_fleet
        self._most_at: Mapping[str, int] = {}
        self._total = ByteRate(total_kbps * _KBIT / processes) if total_kbps else None
        self._limits: Mapping[str, SiteLimit] = {}
        self._sites: dict[str, ByteRate] = {}
        self._devices: dict[str, ByteRate] = {}

    def flow(self, device: str, key: For) -> Flow:
        """The flow of one answer to a device."""
        return DeviceFlow(self, device, key)

    def limit(self, limits: Mapping[str, SiteLimit]) -> None:
        """Take in what sites are allowed from now on. May be called from any thread."""
        self._limits = limits
        self._most_at = {site: self._most(found) for site, found in limits.items()}

    def _most(self, found: SiteLimit) -> int:
        most = []
        if found.max_downloads:
            most.append(max(found.max_downloads // self._of_fleet(), 1))
        if found.max_rate_kbps:
            most.append(max(int(self._share(found.max_rate_kbps) // LEAST_SHARE), 1))
        return min(most, default=0)

    def _share(self, kbps: int) -> float:
        return kbps * _KBIT / self._of_fleet()

    def is_limited(self, site: str) -> bool:
        """Whether a site has limits of its own."""
        return site in self._limits

    def paces(self, site: str, device: str) -> list[ByteRate]:
        """The rates that a download has to keep to, now."""
        found = [self._total] if self._total else []
        limit = self._limits.get(site)
        if limit and limit.max_rate_kbps:
            found.append(_pace(self._sites, site, self._share(limit.max_rate_kbps)))
        if limit and limit.max_device_rate_kbps:
            found.append(_pace(self._devices, device, self._share(limit.max_device_rate_kbps)))
        return found

    def left(self, site: str, device: str, took_s: float) -> None:
        """A download ended."""
        self.queue.leave(site, device, took_s)
        if not self.queue.of_device(device):
            self._devices.pop(device, None)


def _pace(known: dict[str, ByteRate], name: str, rate: float) -> ByteRate:
    pace = known.setdefault(name, ByteRate(rate))
    pace.rate = rate
    return pace


class DeviceFlow:
    """One answer to a device (`blobs.flow.Flow`)."""

    def __init__(
        self, desk: Admission, device: str, key: For, *, size: int = 0, full: int = 0
    ) -> None:
        self._desk, self._device, self._key = desk, device, key
        self._size, self._full = size, full
        self._sent = 0
        self._began = 0.0

    def of_delta(self, *, size: int, full: int) -> Flow:
        return DeviceFlow(self._desk, self._device, self._key, size=size, full=full)

    @property
    def piece(self) -> int:
        paces = self._desk.paces(self._key.site, self._device)
        return piece_of(min((p.rate for p in paces), default=float("inf")), WHOLE_PIECES)

    async def begin(self, gone: asyncio.Future[Any]) -> None:
        try:
            await self._desk.queue.enter(self._key.site, self._device, gone)
        except DownloadsBusy:
            self._desk.metrics.downloads_refused.inc()
            raise
        self._desk.metrics.downloads.inc()
        self._began = time.monotonic()

    async def pace(self, count: int) -> None:
        now = time.monotonic()
        paces = self._desk.paces(self._key.site, self._device)
        wait_s = max((pace.take(count, now) for pace in paces), default=0.0)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def sent(self, count: int) -> None:
        before, self._sent = self._sent, self._sent + count
        if not self._size:
            self._desk.metrics.bytes_sent.labels("full").inc(count)
            self._desk.counting.add(self._key, full=count)
            return
        stood_for = self._stands_for(self._sent) - self._stands_for(before)
        self._desk.metrics.bytes_sent.labels("delta").inc(count)
        self._desk.counting.add(self._key, delta=count, stood_for=stood_for)

    def _stands_for(self, sent: int) -> int:
        return sent * self._full // self._size

    def end(self) -> None:
        self._desk.metrics.downloads.dec()
        self._desk.left(self._key.site, self._device, time.monotonic() - self._began)

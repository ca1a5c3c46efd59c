"""Caps over real connections: rates within a tenth, fair turns, 503 and Retry-After."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import pytest

from pilotwave_protocol.digest import sha256_hex
from pilotwave_server.downloads.admission import Admission
from pilotwave_server.settings import Settings
from tests.server.device_api.peer import SimulatedDevice
from tests.server.downloads.test_bytes import wait_for
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.registry.registry import onnx

pytestmark = only_sqlite
FILE = onnx("capped", weights=random.Random(1).randbytes(1_000_000))
PATH = f"/blobs/{sha256_hex(FILE)}"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"max_downloads": 2})


@pytest.fixture
def ready(fleet: Fleet) -> Fleet:
    """Devices are told to run a version of 1 MB."""
    fleet.registry.publish("detector", "3.0.0", files={"model.onnx": FILE})
    fleet.group("all", "*")
    fleet.assign("all", "3.0.0")
    return fleet


def limit(fleet: Fleet, site: str, **limits: int) -> None:
    answer = fleet.operator.put("/api/v1/site-limits", json={"site": site, **limits})
    assert answer.status_code == 200, answer.text
    wait_for(lambda: site in fleet.context.get(Admission)._limits)


@dataclass
class Download:
    """One download on a connection of its own: when each piece came."""

    device: SimulatedDevice
    came: list[tuple[float, int]] = field(default_factory=list)
    status: int = 0
    retry_after: str = ""

    def run(self) -> Download:
        headers = {"Authorization": f"Bearer {self.device.token}"}
        base = self.device.http.base_url
        with (
            httpx.Client(base_url=base, timeout=60) as client,
            client.stream("GET", PATH, headers=headers) as answer,
        ):
            self.status = answer.status_code
            self.retry_after = answer.headers.get("retry-after", "")
            for piece in answer.iter_raw():
                self.came.append((time.monotonic(), len(piece)))
        return self

    @property
    def bytes(self) -> int:
        return sum(n for _, n in self.came)


def rate(downloads: list[Download]) -> float:
    """Bytes per second from the first piece to the last, of all together."""
    came = sorted(piece for d in downloads for piece in d.came)
    return sum(n for _, n in came[1:]) / (came[-1][0] - came[0][0])


def together(downloads: list[Download]) -> None:
    with ThreadPoolExecutor(len(downloads)) as pool:
        list(pool.map(Download.run, downloads))


def test_a_sites_rate_is_held_within_a_tenth_and_shared_evenly(ready: Fleet) -> None:
    limit(ready, "berlin", max_rate_kbps=4000)  # 500 kB/s: two files of 1 MB in 4 s
    both = [Download(ready.device(f"cam-{n}", site="berlin")) for n in (1, 2)]
    together(both)
    assert [d.bytes for d in both] == [len(FILE)] * 2
    assert rate(both) == pytest.approx(500_000, rel=0.1)
    halfway = both[0].came[0][0] + 2
    shares = [sum(n for at, n in d.came if at < halfway) for d in both]
    assert min(shares) > 0.7 * max(shares)


def test_a_devices_rate_is_held_and_another_sites_is_not(ready: Fleet) -> None:
    limit(ready, "berlin", max_device_rate_kbps=4000)
    slow = Download(ready.device("cam-1", site="berlin"))
    quick = Download(ready.device("cam-2", site="oslo"))
    together([slow, quick])
    assert rate([slow]) == pytest.approx(500_000, rel=0.1)
    assert quick.bytes == len(FILE)
    assert quick.came[-1][0] < slow.came[-1][0]


def test_a_limit_that_is_lifted_holds_no_more(ready: Fleet) -> None:
    limit(ready, "berlin", max_rate_kbps=80)  # 100 s
    slow = Download(ready.device("cam-1", site="berlin"))
    thread = threading.Thread(target=slow.run)
    thread.start()
    wait_for(lambda: slow.bytes > 3000)
    ready.operator.put("/api/v1/site-limits", json={"site": "berlin"})
    thread.join(30)
    assert slow.bytes == len(FILE)


@pytest.mark.slow
def test_one_device_of_a_small_site_comes_before_thirty_of_a_large_one(ready: Fleet) -> None:
    """Two places, each download takes a second: the small site's comes within about two."""
    limit(ready, "big", max_device_rate_kbps=8000)
    many = [Download(ready.device(f"big-{n}", site="big")) for n in range(30)]
    one = Download(ready.device("small", site="small"))
    queue = ready.context.get(Admission).queue
    with ThreadPoolExecutor(31) as pool:
        for download in many:
            pool.submit(download.run)
        wait_for(lambda: queue.waiting >= 20)
        pool.submit(one.run).result()
        done_before = sum(d.bytes == len(FILE) for d in many)
        assert (one.status, one.bytes) == (200, len(FILE))
        assert done_before < 12
    refused = [d for d in many if d.status == 503]
    assert refused  # the queue of 28 takes longer than anyone waits
    assert all(2 <= int(d.retry_after) <= 60 for d in refused)
    assert {d.status for d in many} == {200, 503}
    assert (queue.running, queue.waiting) == (0, 0)


def test_clients_that_break_off_leave_no_place_taken(ready: Fleet) -> None:
    limit(ready, "berlin", max_rate_kbps=800)
    cams = [ready.device(f"cam-{n}", site="berlin") for n in range(4)]
    queue = ready.context.get(Admission).queue

    def break_off(cam: SimulatedDevice) -> None:
        headers = {"Authorization": f"Bearer {cam.token}"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(str(cam.http.base_url.join(PATH)), headers=headers, timeout=(5, 0.5, 5, 5))

    quiet: Callable[[SimulatedDevice], None] = break_off
    streams = [Download(cam) for cam in cams[:2]]
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(d.run) for d in streams]
        wait_for(lambda: queue.running == 2)
        list(pool.map(quiet, cams[2:]))
        wait_for(lambda: queue.waiting == 0)
        ready.operator.put("/api/v1/site-limits", json={"site": "berlin"})
        for each in running:
            each.result(30)
    wait_for(lambda: queue.running == 0)

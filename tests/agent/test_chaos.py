"""A flaky line for a simulated day: the device always ends where it should, and loses no report."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.net.download import Downloader, Limits
from pilotwave_agent.net.http import Channel
from pilotwave_agent.settings.config import ProbeSettings
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.manifest import FileEntry
from pilotwave_protocol.messages.check_in import DeviceEvent, Installed
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import ModelState, Reason
from tests.peers.device import Device
from tests.peers.proxy import KINDS, Fault, Proxy, at_random
from tests.peers.registry import Registry, Reply, example
from tests.peers.simulated import SimulatedAgent, SimulatedClock

pytestmark = pytest.mark.long

HOUR = 3600.0
BIG = os.urandom(3_000_000)
BREAKS = ("drop", "truncate", "stall")


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    made = Proxy(int(registry.url.rpartition(":")[2]))
    yield made
    made.close()


class Life:
    """A device behind the proxy, its days, and every event that its journal ever held."""

    def __init__(self, device: Device, proxy: Proxy) -> None:
        device.registry.poll_s, device.registry.check_in_s = 300, 900
        # by the simulated clock: a probe every tenth of a second would be 600 processes a switch
        probe = ProbeSettings("exec", ("true",), interval_s=5)
        device.set(server=proxy.url, network_timeout_s=0.3, probation_s=60.0, probe=probe)
        self.device, self.registry = device, device.registry
        self.clock = SimulatedClock(device.registry.now.timestamp() + 60)
        self.simulated = SimulatedAgent(device.config, device.config_path, self.clock)
        self.events: dict[int, DeviceEvent] = {}

    def live(self, seconds: float) -> None:
        """Let time pass in pieces, taking note of what the journal says."""
        ends = self.clock.passed + seconds
        while self.clock.passed < ends:
            self.simulated.live(min(60.0, ends - self.clock.passed))
            self.events.update({e.id: e for e in self.device.state.events})

    def runs(self, entry: Entry) -> bool:
        slot = self.device.slot()
        current = slot.current
        return slot.state is ModelState.HEALTHY and bool(current) and current == installed(entry)

    def lost(self) -> set[int]:
        """Return the events that the registry never got."""
        return self.events.keys() - self.registry.events.keys()


def installed(entry: Entry) -> Installed:
    return Installed(entry.version, entry.sha256, entry.variant, entry.counter)


@pytest.fixture
def life(device: Device, proxy: Proxy) -> Iterator[Life]:
    made = Life(device, proxy)
    yield made
    made.simulated.close()


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3, 4, 5))]
)
def test_a_day_on_a_flaky_line_ends_well_and_no_report_is_lost(
    life: Life, proxy: Proxy, seed: int
) -> None:
    chance = random.Random(seed)
    proxy.plan = at_random(chance, 0.35)
    registry, wanted = life.registry, None
    for number in range(8):  # every three hours another version, and an outage now and then
        source = example(("1.0.0", "1.1.0")[number % 2])
        wanted = registry.publish("detector", f"1.{number}.0", source)
        registry.order(wanted)
        outage = chance.choice((0.0, 0.0, 0.5, 2.0)) * HOUR
        proxy.down = True
        life.live(outage)
        proxy.down = False
        life.live(2 * HOUR - outage)
        for _ in range(12):  # new connections, new faults
            proxy.cut()
            life.live(HOUR / 12)
    assert round(life.clock.passed / HOUR) == 24
    assert sum(proxy.struck[kind] for kind in KINDS) > 10, proxy.struck
    proxy.plan = lambda: Fault()
    life.live(HOUR)
    assert wanted
    assert life.runs(wanted), life.device.slot()
    assert life.lost() == set()
    assert {n: e.kind for n, e in life.events.items()} == {
        n: registry.events[n].kind for n in life.events
    }
    assert life.device.state.dropped == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_that_always_fails_in_one_way_does_no_harm(
    life: Life, proxy: Proxy, kind: str
) -> None:
    """While each connection breaks nothing may be switched; afterwards everything comes right."""
    registry = life.registry
    first = registry.publish("detector", "1.0.0", example("1.0.0"))
    registry.order(first)
    life.live(HOUR / 2)
    assert life.runs(first)
    chance = random.Random(kind)
    second = registry.publish("detector", "1.1.0", example("1.1.0"))
    registry.order(second)
    proxy.plan = lambda: Fault(kind, chance.randrange(40, 700), rate=20_000, stall_s=0.4)
    for _ in range(6):  # new connections, new faults
        proxy.cut()
        life.live(HOUR / 12)
    assert proxy.struck[kind] > 3
    assert life.device.current().startswith(("1.0.0-", "1.1.0-"))
    proxy.plan = lambda: Fault()
    proxy.cut()
    life.live(HOUR)
    assert life.runs(second), (life.device.slot(), life.device.state.refusal)
    assert life.lost() == set()


def test_a_directive_that_was_damaged_on_its_way_is_asked_for_again(
    life: Life, registry: Registry
) -> None:
    entry = registry.publish("detector", "1.0.0", example("1.0.0"))
    registry.order(entry)
    left = [1]

    def damaged(path: str, reply: Reply) -> Reply:
        if path == "/device/v1/directive" and reply.status == 200 and left[0]:
            left[0] -= 1
            return replace(reply, body=reply.body.replace(b'"payload":"', b'"payload":"A', 1))
        return reply

    registry.bend = damaged
    life.live(HOUR / 2)
    assert left == [0]
    assert any(e.reason == Reason.BAD_ENVELOPE for e in registry.events.values())
    assert life.runs(entry)


def test_a_manifest_that_was_damaged_on_its_way_is_fetched_again(
    life: Life, registry: Registry
) -> None:
    entry = registry.publish("detector", "1.0.0", example("1.0.0"))
    registry.order(entry)
    left = [1]

    def damaged(path: str, reply: Reply) -> Reply:
        if path.startswith("/tuf/targets/models/") and left[0]:
            left[0] -= 1
            return replace(reply, body=b"x" + reply.body[1:])
        return reply

    registry.bend = damaged
    life.live(HOUR / 2)
    assert left == [0]
    assert life.runs(entry)


def test_a_number_that_was_damaged_on_its_way_acknowledges_nothing(
    life: Life, registry: Registry
) -> None:
    """An answer is not signed: what it says must not cost a report."""
    entry = registry.publish("detector", "1.0.0", example("1.0.0"))
    registry.order(entry)

    def generous(path: str, reply: Reply) -> Reply:
        if path != "/device/v1/check-in" or reply.status != 200:
            return reply
        told = b'"acked_event":%d' % max(registry.events, default=0)
        return replace(reply, body=reply.body.replace(told, b'"acked_event":3', 1))

    registry.bend = generous
    life.live(HOUR)
    registry.bend = lambda path, reply: reply
    life.live(HOUR)
    assert life.runs(entry)
    assert life.lost() == set()


# --- what a broken line costs


@pytest.fixture
def fetcher(registry: Registry, proxy: Proxy, tmp_path: Path) -> Iterator[Downloader]:
    registry.files[f"/blobs/{sha256_hex(BIG)}"] = BIG
    channel = Channel(proxy.url, gap_s=0.3)
    yield Downloader(Disk(), tmp_path / "blobs", channel, "token", Limits(keep_free_bytes=0))
    channel.close()


def tried(fetcher: Downloader, entry: FileEntry) -> Reason | None:
    """Return why a file could not be had, None if it came."""
    try:
        fetcher.fetch([entry])
    except RefusedError as no:
        return no.reason
    return None


@pytest.mark.parametrize("kind", BREAKS)
def test_less_than_a_hundredth_is_fetched_twice_whatever_breaks(
    registry: Registry, proxy: Proxy, fetcher: Downloader, kind: str
) -> None:
    chance = random.Random(3)
    proxy.plan = lambda: Fault(kind, chance.randrange(100_000, 400_000), stall_s=0.5)
    entry = FileEntry("model.onnx", len(BIG), sha256_hex(BIG))
    for _ in range(60):
        if (no := tried(fetcher, entry)) is None:
            break
        assert no in (Reason.BLOB_UNAVAILABLE, Reason.SLOW_RETRIEVAL)
    assert (fetcher.blobs / entry.sha256).read_bytes() == BIG
    assert proxy.struck[kind] >= 6
    heads = 400 * len(registry.requests)
    again = (proxy.delivered - heads - len(BIG)) / len(BIG)
    assert again < 0.01, f"{again:.2%} were fetched again"


def test_two_kilobytes_a_second_are_slow_and_enough(
    registry: Registry, proxy: Proxy, fetcher: Downloader
) -> None:
    small = BIG[:12_000]
    registry.files[f"/blobs/{sha256_hex(small)}"] = small
    proxy.plan = lambda: Fault("throttle", 0, rate=2000)
    begun = time.monotonic()
    fetcher.fetch([FileEntry("model.onnx", len(small), sha256_hex(small))])
    assert time.monotonic() - begun > 5
    assert len(registry.requests) == 1

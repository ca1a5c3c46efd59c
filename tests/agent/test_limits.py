"""The device's own limits: when it fetches, over which network, and how fast."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pilotwave_agent.core.conditions import CHANGE, FETCH, own_hold
from pilotwave_agent.core.environment import Environment
from pilotwave_agent.settings.config import BadConfig, Config, parse
from pilotwave_agent.settings.download_limits import OwnLimits
from pilotwave_protocol.states import ModelState, Reason
from tests.agent.test_conditions import ordered, work_in
from tests.agent.trees import tree
from tests.peers.device import Device
from tests.peers.registry import Registry, example
from tests.peers.simulated import SimulatedAgent, SimulatedClock

BERLIN = ZoneInfo("Europe/Berlin")
BASE: dict[str, Any] = {"server": "http://127.0.0.1:1", "device": "cam-1", "data_dir": "."}
WEDNESDAY = datetime(2026, 11, 25, tzinfo=BERLIN)


def config(**limits: Any) -> Config:
    return parse({**BASE, "limits": limits}, base=Path("/"))


def opens_in(own: OwnLimits, moment: datetime) -> float | None:
    """Hours until the device may fetch: 0 now, None never."""
    found = own_hold(own, Environment(moment.timestamp(), zone="Europe/Berlin"), FETCH)
    return 0 if found is None else None if found.retry_s is None else found.retry_s / 3600


# windows, the hour of a Wednesday, and in how many hours one opens
ROWS: list[tuple[list[str], float, float]] = [
    ([], 12, 0),
    (["22:00-06:00"], 12, 10),
    (["22:00-06:00"], 23, 0),
    (["22:00-06:00"], 5.9, 0),
    (["22:00-06:00"], 6, 16),
    (["00:00-24:00"], 12, 0),
    (["12:00-12:00"], 11, 0),
    (["13:00-14:00", "20:30-21:00"], 15, 5.5),
    (["sat,sun 00:00-24:00"], 12, 60),
    (["fri-mon 10:00-11:00"], 12, 46),
    (["WED 10:00-13:00"], 12, 0),
    (["tue 22:00-06:00"], 3, 0),
]


@pytest.mark.parametrize(("windows", "hour", "wait"), ROWS)
def test_files_are_fetched_within_the_devices_own_windows(
    windows: list[str], hour: float, wait: float
) -> None:
    own = config(windows=windows).limits
    assert opens_in(own, WEDNESDAY + timedelta(hours=hour)) == pytest.approx(wait, abs=0.02)
    noon = Environment((WEDNESDAY + timedelta(hours=12)).timestamp(), zone="Europe/Berlin")
    assert own_hold(own, noon, CHANGE) is None


@pytest.mark.parametrize(
    "wrong", ["22-06", "25:00-26:00", "01:00-24:30", "sam 1:00-2:00", "", "mon"]
)
def test_a_window_that_cannot_be_read_is_refused_with_an_example(wrong: str) -> None:
    with pytest.raises(BadConfig, match="22:00-06:00"):
        config(windows=[wrong])


def test_a_metered_network_is_waited_out_where_the_device_says_so() -> None:
    def reason(on_metered: str, metered: bool | None) -> Reason | None:
        world = Environment(WEDNESDAY.timestamp(), metered=metered)
        found = own_hold(config(on_metered=on_metered).limits, world, FETCH)
        return found.reason if found else None

    assert reason("wait", True) is Reason.WAITING_NETWORK
    assert reason("wait", False) is None
    assert reason("wait", None) is None
    assert reason("fetch", True) is None
    with pytest.raises(BadConfig, match="one of fetch, wait"):
        config(on_metered="never")


def test_nothing_is_fetched_outside_the_window_and_the_switch_needs_none(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    opens = registry.now.replace(second=0) + timedelta(hours=3)
    ends = opens + timedelta(minutes=10)
    window = f"{opens:%H:%M}-{ends:%H:%M}"
    limits = parse({**BASE, "limits": {"windows": [window]}}, base=Path("/")).limits
    registry.poll_s, registry.check_in_s = 86_000, 86_000
    device.set(limits=limits, timezone="UTC")
    ordered(registry)
    clock = SimulatedClock(registry.now.timestamp())
    agent = SimulatedAgent(device.config, device.config_path, clock, tree(tmp_path))
    try:
        agent.live((opens - registry.now).total_seconds() - 5)
        assert device.slot().reason == Reason.WAITING_WINDOW
        assert not [path for path in registry.requests if "/blobs/" in path]
        agent.live(20)
        assert device.slot().state is ModelState.HEALTHY
    finally:
        agent.close()


def test_a_device_that_became_metered_waits_and_says_so(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    device.set(limits=OwnLimits(waits_on_metered=True), metered=True)
    work_in(device, tree(tmp_path), refresh=True)
    assert device.slot().reason == Reason.WAITING_NETWORK
    assert not [path for path in registry.requests if "/blobs/" in path]
    device.set(metered=False)
    work_in(device, tree(tmp_path))
    assert device.slot().state is ModelState.HEALTHY


@contextmanager
def counting_line(port: int) -> Iterator[tuple[int, list[tuple[float, int]]]]:
    """A line to a server that notes when how many bytes came down, as a modem would bill them."""
    seen: list[tuple[float, int]] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(near: socket.socket) -> None:
        with (
            closing(near),
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port)) as far,
        ):
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            up = threading.Thread(target=_copy, args=(near, far, lambda n: None), daemon=True)
            up.start()
            _copy(far, near, lambda n: seen.append((time.monotonic(), n)))

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=carry, args=(near,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], seen
    listener.close()


def _copy(source: socket.socket, sink: socket.socket, note: Any) -> None:
    try:
        while block := source.recv(4096):
            sink.sendall(block)
            note(len(block))
        sink.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


def test_the_cap_holds_on_the_wire_within_a_tenth(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    """Also from the first second on: what the system would read ahead is bounded too."""
    build = example("1.0.0")
    registry.order(registry.publish("detector", "1.0.0", {**build, "model.onnx": b"x" * 700_000}))
    port = int(registry.url.rpartition(":")[2])
    with counting_line(port) as (near, seen):
        device.set(
            server=f"http://127.0.0.1:{near}",
            limits=OwnLimits(max_rate_kbps=1200),
            allow_unsafe_formats=True,
        )
        work_in(device, tree(tmp_path), refresh=True)
    total = sum(n for _, n in seen)
    assert total > 700_000
    begin, end = seen[0][0], seen[-1][0]
    # 150 kB/s and what may be ahead of it: a quarter of a second, and the line's own 32 kB
    for moment, _ in seen:
        came = sum(n for at, n in seen if at <= moment)
        assert came < 150_000 * (moment - begin) * 1.1 + 150_000 / 4 + 100_000
    assert total / (end - begin) < 150_000 * 1.1 + 100_000 / (end - begin)


def test_a_busy_server_is_come_back_to_when_it_said(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    ordered(registry)
    asked: list[float] = []
    clock = SimulatedClock(registry.now.timestamp())

    def bent(path: str, reply: Any) -> Any:
        if path.startswith("/blobs/") and len(asked) < 3:
            asked.append(clock.uptime())
            return replace(reply, status=503, body=b"{}", headers={"Retry-After": "1000"})
        return reply

    registry.bend = bent
    registry.poll_s, registry.check_in_s = 86_000, 86_000
    agent = SimulatedAgent(device.config, device.config_path, clock, tree(tmp_path))
    try:
        agent.live(6 * 3600)
        assert device.slot().state is ModelState.HEALTHY
        waits = [b - a for a, b in itertools.pairwise(asked)]
        assert len(waits) == 2
        assert all(1000 <= wait <= 1510 for wait in waits)
    finally:
        agent.close()

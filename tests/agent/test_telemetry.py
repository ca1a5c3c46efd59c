"""What applications measure reaches the server: once, in order, whatever breaks in between."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.check_in.metrics import MAX_KEPT, Telemetry
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.live.generation import Version
from pilotwave_agent.live.recorder import Recorder
from pilotwave_protocol.messages.check_in import MAX_METRICS
from tests.agent.mortal import Dies, Mortal
from tests.peers.device import Device
from tests.peers.registry import Registry

WALL = 1_900_000_000.0


def version(number: int) -> Version:
    return Version("detector", f"1.{number}.0", "onnx", "0" * 64, f"1.{number}.0-x", Path("/x"))


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    (tmp_path / "live" / "detector").mkdir(parents=True)
    return tmp_path / "live" / "detector"


def opened(desk: Path, disk: Disk | None = None) -> Telemetry:
    root = desk.parent.parent
    return Telemetry(disk or Disk(), root / "live", root / "telemetry" / "spool.json")


def counts(telemetry: Telemetry) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for report in telemetry.pending():
        key = (report.version, report.metric)
        found[key] = found.get(key, 0) + report.sketch.count
    return found


def test_several_processes_become_one_window_for_each_version_and_metric(desk: Path) -> None:
    for name in ("a", "b"):
        recorder = Recorder(desk, name)
        recorder.call(version(1), 5.0, failed=False)
        recorder.call(version(1), 0.0, failed=True)
        recorder.value(version(2), "score", 0.5)
        recorder.flush()
    telemetry = opened(desk)
    telemetry.collect(WALL)
    assert counts(telemetry) == {
        ("1.1.0", "error"): 4,
        ("1.1.0", "latency_ms"): 2,
        ("1.2.0", "score"): 2,
    }
    assert [r.id for r in telemetry.pending()] == [1, 2, 3]
    assert os.listdir(desk) == []
    telemetry.collect(WALL)
    assert len(telemetry.pending()) == 3


def test_numbers_go_on_after_a_restart_and_windows_stay_until_acknowledged(desk: Path) -> None:
    recorder = Recorder(desk, "a")
    for _ in range(2):
        recorder.value(version(1), "score", 0.5)
        recorder.flush()
        opened(desk).collect(WALL)
    telemetry = opened(desk)
    assert [r.id for r in telemetry.pending()] == [1, 2]
    first, second = telemetry.pending()
    assert first.end <= second.start
    assert telemetry.acked(1)
    assert [r.id for r in opened(desk).pending()] == [2]
    assert not telemetry.acked(2)
    assert opened(desk).pending() == ()
    recorder.value(version(1), "score", 0.5)
    recorder.flush()
    telemetry.collect(WALL)
    assert [r.id for r in telemetry.pending()] == [3]


def test_a_lost_file_takes_up_the_numbers_that_the_server_knows(desk: Path) -> None:
    recorder = Recorder(desk, "a")
    recorder.value(version(1), "score", 0.5)
    recorder.flush()
    telemetry = opened(desk)
    telemetry.collect(WALL)
    telemetry.acked(41)
    assert [r.id for r in opened(desk).pending()] == [42]


def test_wherever_it_dies_each_number_is_counted_once(desk: Path) -> None:
    for left in range(24):
        for path in desk.iterdir():
            path.unlink()
        (desk.parent.parent / "telemetry" / "spool.json").unlink(missing_ok=True)
        for name in ("a", "b", "c"):
            recorder = Recorder(desk, name)
            recorder.value(version(1), "score", 0.5)
            recorder.flush()
        try:
            opened(desk, Mortal(left)).collect(WALL)
        except Dies:
            pass
        telemetry = opened(desk)
        telemetry.collect(WALL)
        assert counts(telemetry) == {("1.1.0", "score"): 3}, left


def test_a_full_disk_counts_nothing_twice(desk: Path) -> None:
    class Full(Disk):
        full = True

        def write(self, fd: int, data: bytes | memoryview) -> None:
            if self.full:
                raise OSError(28, "No space left on device")
            super().write(fd, data)

    disk, recorder = Full(), Recorder(desk, "a")
    recorder.value(version(1), "score", 0.5)
    recorder.flush()
    telemetry = opened(desk, disk)
    telemetry.collect(WALL)
    assert telemetry.pending() == ()
    disk.full = False
    telemetry.collect(WALL)
    assert counts(telemetry) == {("1.1.0", "score"): 1}


def test_offline_little_is_collected_and_nothing_is_lost(desk: Path) -> None:
    telemetry, recorder = opened(desk), Recorder(desk, "a")
    for _ in range(100):
        recorder.value(version(1), "score", 0.5)
        recorder.flush()
        telemetry.collect(WALL)
    assert len(telemetry.pending()) == MAX_METRICS
    left = [json.loads(p.read_bytes()) for p in desk.glob("*.window")]
    waiting = sum(sum(w["sketches"]["score"]["above"][1::2]) for w in left)
    assert sum(counts(telemetry).values()) + waiting == 100
    assert len(left) == 1


def test_a_crowd_of_ended_processes_is_taken_and_the_oldest_windows_go(desk: Path) -> None:
    telemetry = opened(desk)
    for number in range(400):
        recorder = Recorder(desk, f"crashing-{number}")
        recorder.value(version(number % 5), "score", 0.5)
        recorder.flush()
        telemetry.collect(WALL)
    assert len(os.listdir(desk)) < 70
    assert len(telemetry._spool.reports) <= MAX_KEPT
    size = (desk.parent.parent / "telemetry" / "spool.json").stat().st_size
    assert size < 256 << 10


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"schema": "pilotwave/window/1"}',
        b'{"schema": "pilotwave/window/1", "version": "../..", "begun": 1, "ended": 2,'
        b' "sketches": {}}',
        b'{"schema": "pilotwave/window/1", "version": "1.0.0", "begun": 1e99, "ended": 2,'
        b' "sketches": {"score": {}}}',
        b'{"schema": "pilotwave/window/1", "version": "1.0.0", "begun": 1, "ended": 2,'
        b' "sketches": {"score": {"above": [1], "below": [], "zero": 0, "sum": 0, "min": 0,'
        b' "max": 0}, "BAD NAME": 7}}',
        b" " * 70_000,
    ],
)
def test_a_window_of_nonsense_is_passed_over_and_removed(desk: Path, raw: bytes) -> None:
    (desk / "evil.1.window").write_bytes(raw)
    os.mkfifo(desk / "pipe.1.window")
    (desk / "link.1.window").symlink_to("/etc/passwd")
    telemetry = opened(desk)
    telemetry.collect(WALL)
    assert telemetry.pending() == ()
    assert os.listdir(desk) == []


def test_a_damaged_spool_is_begun_anew(desk: Path) -> None:
    path = desk.parent.parent / "telemetry" / "spool.json"
    path.parent.mkdir()
    path.write_bytes(b'{"last": 7, "reports": [{}]}')
    assert opened(desk).pending() == ()


def test_windows_travel_in_check_ins(device: Device, registry: Registry) -> None:
    from pilotwave_agent.commands.once import once

    desk = device.layout.live / "detector"
    desk.mkdir(parents=True)
    recorder = Recorder(desk, "a")
    recorder.call(version(1), 5.0, failed=False)
    recorder.flush()
    registry.order()
    assert once(device.config, device.config_path) is None
    # the first report asks whether the server reads names, and counts nothing
    assert registry.check_ins[0].metrics == ()
    told: list[Any] = [(m.id, m.version, m.metric) for m in registry.check_ins[1].metrics]
    assert told == [(1, "1.1.0", "error"), (2, "1.1.0", "latency_ms")]
    registry.acked_metric = 2
    assert once(device.config, device.config_path) is None
    assert once(device.config, device.config_path) is None
    assert registry.check_ins[-1].metrics == ()

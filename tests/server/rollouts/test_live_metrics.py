"""Live metrics of a rollout, from the device's window to the gate's verdict, over HTTP."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select

from pilotwave_protocol.messages.check_in import MetricReport, ModelReport
from pilotwave_protocol.sketch import Sketch
from pilotwave_protocol.states import ModelState
from pilotwave_server.rollouts.tables import RolloutSampleRow, RolloutSketchRow
from pilotwave_server.telemetry.tables import DeviceMetricRow
from tests.server.device_api.peer import SimulatedDevice, installed
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.rollouts.test_engine_http import COUNTERS, create, in_state, live_until, show

pytestmark = pytest.mark.long

GATE = {"metric": "latency_ms", "min_effect": 0.05, "min_devices": 2, "min_windows": 6}
WINDOW = timedelta(minutes=15)


class InUse:
    """A device that runs what it is told and reports how long calls take. `slower` is by version
    what they take on top; `speed` is the device's own. With `shares` by version, it reports how
    often the `metric` is 1 instead. `mute`: its application records nothing."""

    def __init__(self, device: SimulatedDevice, seed: int, clock: Any) -> None:
        self.device, self.clock = device, clock
        self.rng = random.Random(seed)
        self.speed = 10 * 2 ** self.rng.gauss(0, 1)
        self.slower: dict[str, float] = {}
        self.current, self.previous = "1.0.0", ""
        self.metric, self.shares = "low_confidence", dict[str, float]()
        self.mute = False
        self.windows = 0

    def live(self) -> None:
        """Poll, do as told, report one window and what it runs."""
        told = self.device.runs().get("detector", self.current)
        if told != self.current:
            self.previous, self.current = self.current, told
        window = self.share_window() if self.shares else self.window()
        self.report(*([] if self.mute else [window]))

    def window(self, **changes: Any) -> MetricReport:
        self.windows += 1
        sketch = Sketch()
        load = self.speed * (1 + self.slower.get(self.current, 0.0)) * 1.02 ** self.rng.gauss(0, 1)
        for _ in range(40):
            sketch.add(load * 1.1 ** self.rng.gauss(0, 1))
        start = self.clock.now
        told: dict[str, Any] = {
            "metric": "latency_ms",
            "version": self.current,
            "start": start,
            "end": start + WINDOW,
            "sketch": sketch,
        }
        return MetricReport(id=self.windows, model="detector", **{**told, **changes})

    def share_window(self) -> MetricReport:
        """A window of 0 and 1 for each of 200 inputs."""
        sketch = Sketch()
        for _ in range(200):
            sketch.add(float(self.rng.random() < self.shares[self.current]))
        return self.window(metric=self.metric, sketch=sketch)

    def report(self, *windows: MetricReport) -> dict[str, Any]:
        current = installed(self.current, COUNTERS[self.current])
        before = installed(self.previous, COUNTERS[self.previous]) if self.previous else None
        model = ModelReport("detector", ModelState.HEALTHY, current=current, previous=before)
        answer = self.device.check_in(model, metrics=windows)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
def cams(fleet: Fleet, clock: Any) -> list[InUse]:
    """30 devices that have used 1.0.0 for three windows, half of them on another board."""
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    made = []
    for n in range(30):
        device = fleet.device(f"cam-{n}", line="a", board=("nano", "pi")[n % 2])
        made.append(InUse(device, n, clock))
    for cam in made:
        cam.report(cam.window(), cam.window(), cam.window())
    return made


def waves(**gate: Any) -> dict[str, Any]:
    gates = [{**GATE, **gate}]
    first = {"name": "first", "canary": {"devices": [f"cam-{n}" for n in range(6)]}, "gates": gates}
    return {"waves": [first, {"name": "everyone", "percent": 100}]}


@only_sqlite
def test_a_slower_version_is_stopped_on_its_first_devices(fleet: Fleet, cams: list[InUse]) -> None:
    for cam in cams:
        cam.slower["1.1.0"] = 0.5
    rollout = create(fleet, policy=waves())
    found = live_until(fleet, rollout, cams, in_state("rolled_back"))
    verdict = found["failure"]
    assert verdict["word"] == "FAIL"
    assert "p95 of latency_ms is" in verdict["sentence"]
    assert 0.4 < verdict["numbers"]["change"] < 0.6
    assert -0.1 < verdict["numbers"]["change_without"] < 0.1
    assert {cam.current for cam in cams} == {"1.0.0"}
    assert sum(bool(cam.previous) for cam in cams) == 6


@only_sqlite
def test_a_version_that_is_no_slower_goes_to_all(fleet: Fleet, cams: list[InUse]) -> None:
    rollout = create(fleet, policy=waves())
    found = live_until(fleet, rollout, cams, in_state("completed"))
    assert {cam.current for cam in cams} == {"1.1.0"}
    opened = next(d for d in found["decisions"] if d["wave"] == 1 and d["action"] == "open_wave")
    assert "p95 of latency_ms is" in opened["sentence"]


SHARES = ["low_confidence", "escalated", "overruled"]


def rolled_out_by(fleet: Fleet, cams: list[InUse], metric: str, after: float) -> str:
    """Each device meets inputs of its own; what counts is how its share of them changed."""
    for cam in cams:
        cam.metric, cam.shares = metric, {"1.0.0": 0.1, "1.1.0": after}
        cam.report(*(cam.share_window() for _ in range(3)))
    gate = {"metric": metric, "statistic": "mean", "worse": "higher", "min_effect": 0.2}
    return create(fleet, policy=waves(**gate))


@only_sqlite
@pytest.mark.parametrize("metric", SHARES)
def test_a_version_with_more_inputs_of_a_kind_is_stopped_where_a_policy_says_so(
    fleet: Fleet, cams: list[InUse], metric: str
) -> None:
    rollout = rolled_out_by(fleet, cams, metric, 0.35)
    found = live_until(fleet, rollout, cams, in_state("rolled_back"))
    assert f"mean of {metric} is" in found["failure"]["sentence"]
    assert sum(bool(cam.previous) for cam in cams) == 6
    assert {cam.current for cam in cams} == {"1.0.0"}


@only_sqlite
@pytest.mark.parametrize("metric", SHARES[1:])
def test_a_version_with_fewer_inputs_of_a_kind_goes_to_all(
    fleet: Fleet, cams: list[InUse], metric: str
) -> None:
    rollout = rolled_out_by(fleet, cams, metric, 0.05)
    found = live_until(fleet, rollout, cams, in_state("completed"))
    opened = next(d for d in found["decisions"] if d["wave"] == 1 and d["action"] == "open_wave")
    assert f"mean of {metric} is" in opened["sentence"]
    assert {cam.current for cam in cams} == {"1.1.0"}


@only_sqlite
def test_a_metric_that_nobody_reports_ends_in_a_question_to_people(
    fleet: Fleet, cams: list[InUse], clock: Any
) -> None:
    for cam in cams:
        cam.mute = True
    rollout = create(fleet, policy=waves(metric="queue.depth", statistic="mean"))
    live_until(fleet, rollout, cams, lambda _: sum(bool(cam.previous) for cam in cams) == 6)
    clock.advance(seconds=7200)
    for cam in cams:
        cam.report()  # a new token

    def told(found: dict[str, Any]) -> bool:
        verdict = found["waves"][0]["verdict"]
        return bool(verdict and verdict["gates"] and verdict["gates"][0]["word"] == "INCONCLUSIVE")

    found = live_until(fleet, rollout, cams, told)
    sentence = found["waves"][0]["verdict"]["gates"][0]["sentence"]
    assert "no device has reported queue.depth for the new version yet" in sentence
    assert "Does the application record it under this name?" in sentence


def test_windows_are_counted_once_and_kept_by_version(fleet: Fleet, clock: Any) -> None:
    cam = InUse(fleet.device("cam-1"), 1, clock)
    first, second = cam.window(), cam.window()
    assert cam.report(first)["acked_metric"] == 1
    assert cam.report(first, second)["acked_metric"] == 2
    assert cam.report(second, first)["acked_metric"] == 2
    with fleet.context.db.read() as session:
        row = session.scalars(select(DeviceMetricRow)).one()
        assert (row.version, row.metric, row.windows) == ("1.0.0", "latency_ms", 2)
        assert Sketch.from_plain(row.sketch).count == 80
    for version in ("1.1.0", "1.2.0"):
        cam.current = version
        cam.report(cam.window())
    with fleet.context.db.read() as session:
        versions = session.scalars(select(DeviceMetricRow.version)).all()
    assert set(versions) == {"1.1.0", "1.2.0"}  # the one in use and the one before it


def test_no_device_fills_the_table_with_metrics(fleet: Fleet, clock: Any) -> None:
    cam = InUse(fleet.device("cam-1"), 1, clock)
    for batch in range(6):
        windows = [cam.window(metric=f"m{batch}.{n}") for n in range(16)]
        assert cam.report(*windows)["acked_metric"] == 16 * (batch + 1)
    with fleet.context.db.read() as session:
        assert session.scalar(select(func.count()).select_from(DeviceMetricRow)) == 64


def test_arms_are_told_apart_by_the_draw(fleet: Fleet, cams: list[InUse]) -> None:
    rollout = create(
        fleet, policy={**waves(slice_by=["board"], min_windows=1000), "on_failure": "pause"}
    )
    for cam in cams:
        cam.device.runs()
    pin = "/api/v1/devices/cam-29/models/detector/pin"
    assert fleet.operator.post(pin, json={"version": "1.1.0", "reason": "trial"}).is_success
    live_until(fleet, rollout, [], lambda f: f["wave"] == 0)
    for _ in range(3):
        for cam in cams:
            cam.live()
    with fleet.context.db.read() as session:
        rows = session.scalars(select(RolloutSampleRow)).all()
        sketches = {
            s.arm: Sketch.from_plain(s.sketch, bins=1024)
            for s in session.scalars(select(RolloutSketchRow))
        }
    new = [r for r in rows if r.arm == "new"]
    old = [r for r in rows if r.arm == "old"]
    # six canaries, of which the first window is warm-up; 23 others; the pinned one is in neither
    assert len({r.device_id for r in new}) == 6
    assert 6 <= len(new) <= 12  # the first poll may come before the wave is seen open
    assert len({r.device_id for r in old}) == 23
    assert all(r.reference is not None and r.metric == "latency_ms p95" for r in rows)
    assert {r.slices["board"] for r in rows} == {"nano", "pi"}
    assert sketches["new"].count == len(new) * 40
    assert show(fleet, rollout)["state"] in ("running", "completed")


@only_sqlite
def test_windows_cost_the_same_few_statements_however_many_there_are(
    fleet: Fleet, cams: list[InUse]
) -> None:
    create(fleet, policy=waves(min_windows=10_000))
    for cam in cams:
        cam.live()
    counts = []

    def count(*args: Any) -> None:
        if threading.current_thread().name == "check-ins":  # the engine looks when it likes
            counts[-1] += 1

    engine = fleet.context.db.writer
    event.listen(engine, "before_cursor_execute", count)
    try:
        for windows in (1, 8):
            counts.append(0)
            cams[0].report(*(cams[0].window() for _ in range(windows)))
    finally:
        event.remove(engine, "before_cursor_execute", count)
    assert counts[0] == counts[1] > 0

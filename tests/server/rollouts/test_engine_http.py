"""Rollouts that go their way by themselves: a running server, devices that obey or fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pilotwave_protocol.messages.check_in import ModelReport
from pilotwave_protocol.states import ModelState
from pilotwave_server.fleet.state import FleetState
from tests.server.device_api.peer import SimulatedDevice, installed
from tests.server.fleet_fixtures import Fleet

pytestmark = pytest.mark.long

S = ModelState
COUNTERS = {"1.0.0": 1, "1.1.0": 2, "1.2.0": 3}
GATES = [{"name": "install", "max_failure_rate": 0.01}]
WAVES: list[dict[str, Any]] = [
    {"name": "canary", "canary": {"devices": ["cam-1"]}, "gates": GATES},
    {"name": "everyone", "percent": 100, "gates": GATES},
]


class Obeying:
    """A device that runs what it is told, at once; `bad` versions fail their probation there."""

    def __init__(self, device: SimulatedDevice) -> None:
        self.device = device
        self.current = "1.0.0"
        self.failed: str | None = None
        self.bad: set[str] = set()

    @property
    def name(self) -> str:
        return self.device.name

    def live(self) -> None:
        """Poll, do as told, report."""
        told = self.device.runs().get("detector", self.current)
        if told != self.current and told != self.failed:
            self.check_in(S.FETCHING, candidate=told)
            before, self.current = self.current, told
            self.check_in(S.PROBATION, previous=before)
            if told in self.bad:
                self.current, self.failed = before, told
        if self.failed is not None and self.failed == told:
            self.check_in(S.ROLLED_BACK, candidate=told, reason="probe_failed")
        else:
            self.check_in(S.HEALTHY)

    def check_in(self, state: S, *, reason: str | None = None, **versions: str) -> None:
        slots = {slot: installed(v, COUNTERS[v]) for slot, v in versions.items()}
        now = installed(self.current, COUNTERS[self.current])
        report = ModelReport("detector", state, current=now, reason=reason, **slots)  # type: ignore[arg-type]
        answer = self.device.check_in(report)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def cams(fleet: Fleet) -> Fleet:
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    return fleet


def devices(fleet: Fleet, count: int = 3) -> list[Obeying]:
    """Devices cam-1 and so on, running 1.0.0."""
    made = [Obeying(fleet.device(f"cam-{n}", line="a")) for n in range(1, count + 1)]
    for one in made:
        one.check_in(S.HEALTHY)
    return made


def create(fleet: Fleet, **changes: Any) -> str:
    policy = {"name": "quick", "waves": WAVES, **changes.pop("policy", {})}
    told = {"group": "cams", "model": "detector", "version": "1.1.0", "document": policy}
    body = {**told, "start": True, **changes}
    answer = fleet.operator.post("/api/v1/rollouts", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def show(fleet: Fleet, rollout: str) -> dict[str, Any]:
    answer = fleet.operator.get(f"/api/v1/rollouts/{rollout}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    # what the engine has just decided is told to devices soon after
    fleet.context.get(FleetState).refresh()
    return found


def live_until(
    fleet: Fleet,
    rollout: str,
    cams: Iterable[Obeying],
    done: Callable[[dict[str, Any]], bool],
    within_s: float = 120,
) -> dict[str, Any]:
    """Have the devices poll and report until the rollout is as wanted."""
    deadline = time.monotonic() + within_s
    cams = list(cams)
    while not done(found := show(fleet, rollout)):
        assert time.monotonic() < deadline, found
        for cam in cams:
            cam.live()
        time.sleep(0.05)
    return found


def in_state(*states: str) -> Callable[[dict[str, Any]], bool]:
    return lambda found: found["state"] in states


def test_good_version_goes_through_its_waves_and_becomes_the_baseline(cams: Fleet) -> None:
    three = devices(cams)
    rollout = create(cams)
    found = live_until(cams, rollout, three, in_state("completed"))
    assert {cam.current for cam in three} == {"1.1.0"}
    assert [w["state"] for w in found["waves"]] == ["closed", "closed"]
    assert sum(w["healthy"] for w in found["waves"]) == 3
    runs = cams.operator.get("/api/v1/groups/cams/baselines").json()["items"]
    assert [r["version"] for r in runs] == ["1.1.0"]
    told = [d["action"] for d in found["decisions"]]
    assert told == ["complete", "open_wave", "open_wave", "start", "create"]
    assert all(d["sentence"] for d in found["decisions"])


def test_no_device_outside_the_canary_wave_gets_a_version_that_fails_there(cams: Fleet) -> None:
    four = devices(cams, 4)
    for cam in four[:2]:
        cam.bad.add("1.1.0")
    canary = {**WAVES[0], "canary": {"devices": ["cam-1", "cam-2"]}}
    rollout = create(cams, policy={"waves": [canary, WAVES[1]]})
    found = live_until(cams, rollout, four, in_state("rolled_back"))
    assert [cam.current for cam in four] == ["1.0.0"] * 4
    assert [cam.failed for cam in four] == ["1.1.0", "1.1.0", None, None]
    assert found["failure"]["word"] == "FAIL"
    assert found["reason"].startswith("rolled back: install")
    # nobody is offered it any more, not even who comes late
    late = cams.device("late", line="a")
    assert late.runs() == {"detector": "1.0.0"}
    assert four[0].device.runs() == {"detector": "1.0.0"}


def test_devices_that_took_it_are_sent_back_when_it_fails_later(cams: Fleet) -> None:
    three = devices(cams)
    for cam in three[1:]:
        cam.bad.add("1.1.0")
    rollout = create(cams)
    found = live_until(cams, rollout, three, in_state("rolled_back"))
    assert [cam.current for cam in three] == ["1.0.0"] * 3
    rows = cams.operator.get(f"/api/v1/rollouts/{rollout}/devices").json()["items"]
    outcomes = {row["device"]: (row["outcome"], row["came_from"]) for row in rows}
    assert outcomes["cam-1"] == ("returned", "1.0.0")
    assert {outcomes[c.name][0] for c in three[1:] if c.failed} == {"rolled_back"}
    assert all(row["left_at"] for row in rows if row["switched_at"])
    assert found["decisions"][0]["action"] == "rolled_back"

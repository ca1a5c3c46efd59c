"""Shadow waves: devices try the version beside the one that serves, and nothing is switched."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from pilotwave_protocol import shadow
from pilotwave_protocol.messages.check_in import MetricReport, ModelReport
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.messages.facts import AGENT_SHADOWS
from pilotwave_protocol.sketch import Sketch
from pilotwave_protocol.states import ModelState
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.rollouts.tables import QuarantineRow
from tests.conftest import FakeClock
from tests.server.device_api.peer import SimulatedDevice, installed
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.rollouts.test_engine_http import COUNTERS, create, in_state, live_until, show

pytestmark = pytest.mark.long

S = ModelState
INSTALL = {"name": "install", "max_failure_rate": 0.01}
TRIED: dict[str, Any] = {
    "name": "tried",
    "canary": {"devices": ["cam-1", "cam-2", "cam-3"]},
    "shadow": {"share": 0.5, "cpu": 0.2, "min_calls": 20},
    "min_sample": 3,
    "gates": [INSTALL],
}
FIRST = {"name": "first", "count": 1, "gates": [INSTALL]}
ALL = {"name": "everyone", "percent": 100, "gates": [INSTALL]}


class ShadowCam:
    """A device whose agent knows shadows. What it reports of a candidate is by version: `broken` it
    cannot test; `worse` is the share of calls in which it disagrees."""

    def __init__(self, device: SimulatedDevice, clock: FakeClock, *, knows: bool = True) -> None:
        self.device, self.clock = device, clock
        self.facts = {**device.facts, **({AGENT_SHADOWS: True} if knows else {})}
        self.current, self.tried = "1.0.0", ""
        self.failed: str | None = None
        self.broken: set[str] = set()
        self.worse: dict[str, float] = {}
        self.live_model = True
        self.switched: list[str] = []
        self.fetched: list[str] = []
        self.windows = 0

    @property
    def name(self) -> str:
        return self.device.name

    def entry(self) -> Entry | None:
        found = self.device.directive().entries
        return next((e for e in found if e.model == "detector"), None)

    def live(self) -> None:
        """Poll, do as told, report."""
        told = self.entry()
        if told is None or told.version == self.current:
            self.tried = ""
            self.check_in(S.HEALTHY)
        elif told.version == self.failed:
            self.check_in(S.FAILED, told.version, reason="selftest_load")
        else:
            self.take(told)

    def take(self, told: Entry) -> None:
        if told.version != self.tried:
            self.fetched.append(told.version)
            self.check_in(S.FETCHING, told.version)
        if told.version in self.broken:
            self.failed, self.tried = told.version, ""
            self.check_in(S.FAILED, told.version, reason="selftest_load")
        elif shadow.SHADOW in told.conditions:
            self.tried = told.version
            self.check_in(S.SHADOWING, told.version, *(self.compared() if self.live_model else ()))
        else:
            self.switched.append(told.version)
            self.current, self.tried = told.version, ""
            self.check_in(S.HEALTHY)

    def compared(self) -> list[MetricReport]:
        worse = self.worse.get(self.tried, 0.0)
        values = {shadow.ERROR: [0.0] * 20, shadow.DISAGREE: [1.0] * int(20 * worse)}
        values[shadow.DISAGREE] += [0.0] * (20 - len(values[shadow.DISAGREE]))
        return [self.window(metric, of) for metric, of in values.items()]

    def window(self, metric: str, values: list[float]) -> MetricReport:
        self.windows += 1
        sketch = Sketch()
        for value in values:
            sketch.add(value)
        now = self.clock.now
        told = {"version": self.tried, "start": now, "end": now, "sketch": sketch}
        return MetricReport(id=self.windows, model="detector", metric=metric, **told)

    def check_in(
        self, state: S, candidate: str = "", *windows: MetricReport, reason: str | None = None
    ) -> None:
        slots = {"candidate": installed(candidate, COUNTERS[candidate])} if candidate else {}
        now = installed(self.current, COUNTERS[self.current])
        report = ModelReport("detector", state, current=now, reason=reason, **slots)
        answer = self.device.check_in(report, facts=self.facts, metrics=windows)
        assert answer.status_code == 200, answer.text


@pytest.fixture
def cams(fleet: Fleet, clock: FakeClock) -> list[ShadowCam]:
    """Five devices that run 1.0.0 and know shadows."""
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    made = [ShadowCam(fleet.device(f"cam-{n}", line="a"), clock) for n in range(1, 6)]
    for cam in made:
        cam.check_in(S.HEALTHY)
    return made


def policy(*waves: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"waves": [*(waves or (TRIED, FIRST)), ALL], **changes}


def outcomes(fleet: Fleet, rollout: str) -> dict[str, str]:
    rows = fleet.operator.get(f"/api/v1/rollouts/{rollout}/devices").json()["items"]
    return {row["device"]: row["outcome"] for row in rows}


def why(fleet: Fleet, name: str) -> str:
    answer = fleet.operator.get(f"/api/v1/devices/{name}/why", params={"model": "detector"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return " | ".join([told["sentence"], *(c["sentence"] for c in told["candidates"])])


def quarantined(fleet: Fleet) -> list[str]:
    with fleet.context.db.read() as session:
        return list(session.scalars(select(QuarantineRow.version)))


@only_sqlite
def test_a_good_version_is_tried_and_then_goes_to_all(fleet: Fleet, cams: list[ShadowCam]) -> None:
    rollout = create(fleet, policy=policy())
    found = live_until(fleet, rollout, cams, lambda f: f["waves"][0]["in_shadow"] == 3)
    assert [cam.tried for cam in cams] == ["1.1.0"] * 3 + ["", ""]
    assert not any(cam.switched for cam in cams)
    assert "should try detector 1.1.0" in why(fleet, "cam-1")
    found = live_until(fleet, rollout, cams, in_state("completed"))
    assert [w["state"] for w in found["waves"]] == ["closed"] * 3
    assert all(cam.switched == ["1.1.0"] for cam in cams)
    # what was tried is not fetched again
    assert all(cam.fetched == ["1.1.0"] for cam in cams)
    assert set(outcomes(fleet, rollout).values()) == {"healthy"}


@only_sqlite
def test_the_condition_says_how_and_only_who_knows_shadows_is_told(
    fleet: Fleet, cams: list[ShadowCam], clock: FakeClock
) -> None:
    old = ShadowCam(fleet.device("cam-9", line="a"), clock, knows=False)
    old.check_in(S.HEALTHY)
    tried = {**TRIED, "canary": {"devices": ["cam-1", "cam-9"]}, "min_sample": 9}
    rollout = create(fleet, policy=policy(tried, FIRST))
    live_until(fleet, rollout, [*cams, old], lambda f: f["waves"][0]["in_shadow"] == 1)
    entry = cams[0].entry()
    assert entry is not None
    assert (entry.version, entry.rollout, entry.reason) == ("1.1.0", rollout, "rollout")
    assert entry.conditions == {"shadow": {"share": 0.5, "cpu": 0.2, "min_calls": 20}}
    for cam in (old, cams[3]):
        assert cam.device.runs() == {"detector": "1.0.0"}
    assert "the agent there cannot do that: update the agent" in why(fleet, "cam-9")


@only_sqlite
def test_who_does_not_run_what_it_should_joins_no_shadow(
    fleet: Fleet, cams: list[ShadowCam], clock: FakeClock
) -> None:
    cams[0].current = "1.2.0"
    cams[0].check_in(S.HEALTHY)
    tried = {**TRIED, "min_sample": 2}
    rollout = create(fleet, policy=policy({**tried, "manual": True}, FIRST))
    live_until(fleet, rollout, cams[1:], lambda f: f["waves"][0]["in_shadow"] == 2)
    for _ in range(5):
        cams[0].device.directive()
    assert cams[0].device.runs() == {"detector": "1.0.0"}
    assert "joins once it reports 1.0.0 as healthy" in why(fleet, "cam-1")
    # and once it does, at its next wish
    clock.advance(seconds=11)
    cams[0].current = "1.0.0"
    cams[0].check_in(S.HEALTHY)
    live_until(fleet, rollout, cams, lambda f: f["waves"][0]["in_shadow"] == 3)


@only_sqlite
def test_who_is_told_to_run_another_version_leaves_the_shadow(
    fleet: Fleet, cams: list[ShadowCam]
) -> None:
    rollout = create(fleet, policy=policy({**TRIED, "manual": True}, FIRST))
    live_until(fleet, rollout, cams, lambda f: f["waves"][0]["in_shadow"] == 3)
    fleet.assign("cams", "1.2.0")
    fleet.context.get(FleetState).refresh()
    assert {cam.device.runs()["detector"] for cam in cams} == {"1.2.0"}
    assert "let in while it ran 1.0.0, and is told to run 1.2.0" in why(fleet, "cam-1")


@only_sqlite
def test_a_version_that_fails_in_shadow_was_switched_to_by_nobody(
    fleet: Fleet, cams: list[ShadowCam]
) -> None:
    for cam in cams:
        cam.broken.add("1.1.0")
    rollout = create(fleet, policy=policy({**TRIED, "min_sample": 1}, FIRST))
    found = live_until(fleet, rollout, cams, in_state("rolled_back"))
    assert found["reason"].startswith("rolled back: install")
    assert found["reason"].endswith("No user has met the version")
    assert found["failure"]["word"] == "FAIL"
    assert found["decisions"][0]["sentence"] == "no device had switched to the version"
    for cam in cams:
        cam.live()
    assert not any(cam.switched for cam in cams)
    assert {cam.current for cam in cams} == {"1.0.0"}
    assert quarantined(fleet) == ["1.1.0"]


@only_sqlite
def test_a_candidate_that_answers_otherwise_is_stopped_with_nobody_switched(
    fleet: Fleet, cams: list[ShadowCam]
) -> None:
    for cam in cams:
        cam.worse["1.1.0"] = 0.5
    everyone = [cam.name for cam in cams]
    gates = [INSTALL, {"disagreement": {"at_most": "2%"}}, {"errors": {"at_most": "1%"}}]
    tried = {**TRIED, "canary": {"devices": everyone}, "gates": gates}
    rollout = create(fleet, policy=policy(tried, FIRST))
    found = live_until(fleet, rollout, cams, in_state("rolled_back"))
    assert found["reason"].startswith("rolled back: disagreement: the answers differ in 50%")
    assert found["reason"].count("No user has met the version") == 1
    for cam in cams:
        cam.live()
    assert not any(cam.switched for cam in cams)
    assert [cam.tried for cam in cams] == [""] * 5
    assert quarantined(fleet) == ["1.1.0"]


@only_sqlite
def test_a_candidate_that_answers_alike_passes_its_paired_gates(
    fleet: Fleet, cams: list[ShadowCam]
) -> None:
    gates = [INSTALL, {"disagreement": {"at_most": "2%"}}, {"errors": {"at_most": "1%"}}]
    tried = {**TRIED, "gates": gates}
    rollout = create(fleet, policy=policy(tried, FIRST))
    found = live_until(fleet, rollout, cams, in_state("completed"))
    told = {g["gate"]: g["word"] for g in found["waves"][0]["verdict"]["gates"]}
    assert told == {"install": "PASS", "disagreement": "PASS", "errors": "PASS"}
    assert all(cam.switched == ["1.1.0"] for cam in cams)


@only_sqlite
def test_taking_it_back_ends_the_shadow(fleet: Fleet, cams: list[ShadowCam]) -> None:
    rollout = create(fleet, policy=policy({**TRIED, "manual": True}, FIRST))
    live_until(fleet, rollout, cams, lambda f: f["waves"][0]["in_shadow"] == 3)
    answer = fleet.operator.post(f"/api/v1/rollouts/{rollout}/rollback", json={"reason": "no"})
    assert answer.status_code == 200, answer.text
    live_until(fleet, rollout, cams, in_state("rolled_back"))
    for cam in cams:
        cam.live()
    assert [cam.tried for cam in cams] == [""] * 5
    assert {cam.device.runs()["detector"] for cam in cams} == {"1.0.0"}
    history = fleet.operator.get("/api/v1/devices/cam-1/history").json()["items"]
    assert [(h["version"], h["became"]) for h in history if h["became"] == "healthy"] == [
        ("1.0.0", "healthy")
    ]


@only_sqlite
def test_a_smaller_wave_after_the_shadow_switches_no_more_devices_than_it_says(
    fleet: Fleet, cams: list[ShadowCam]
) -> None:
    rollout = create(fleet, policy=policy(TRIED, {**FIRST, "manual": True}))
    found = live_until(fleet, rollout, cams, lambda f: f["waves"][1]["healthy"] == 1)
    for _ in range(3):
        for cam in cams:
            cam.live()
    assert sum(bool(cam.switched) for cam in cams) == 1
    # the others go on trying it
    still = [cam.name for cam in cams[:3] if cam.tried]
    assert len(still) >= 2
    assert found["reached_percent"] < 100
    told = outcomes(fleet, rollout)
    assert sorted(name for name, outcome in told.items() if outcome == "shadowing") == still


@only_sqlite
def test_what_failed_in_shadow_does_not_stand_beside_the_first_that_switch(
    fleet: Fleet, cams: list[ShadowCam]
) -> None:
    cams[0].broken.add("1.1.0")
    loose = [{"name": "install", "max_failure_rate": 0.5}]
    strict = {"name": "first", "canary": {"devices": ["cam-4"]}, "gates": [INSTALL]}
    everyone = {**ALL, "gates": loose}
    waves = [{**TRIED, "gates": loose}, strict, everyone]
    rollout = create(fleet, policy={"waves": waves, "deadlines": {"unreached": "1m"}})
    found = live_until(fleet, rollout, cams, lambda f: f["waves"][1]["state"] == "closed")
    assert found["waves"][1]["verdict"]["word"] == "PASS"
    assert outcomes(fleet, rollout)["cam-1"] == "failed"


@only_sqlite
@pytest.mark.parametrize("optional", [True, False])
def test_a_fleet_in_which_nobody_can_take_part(
    fleet: Fleet, clock: FakeClock, optional: bool
) -> None:
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    old = ShadowCam(fleet.device("cam-1", line="a"), clock, knows=False)
    old.check_in(S.HEALTHY)
    terms = {**TRIED["shadow"], "optional": optional}
    rollout = create(fleet, policy=policy({**TRIED, "shadow": terms}))
    none = "no device of the wave can try detector 1.1.0 in shadow"
    if optional:
        found = live_until(fleet, rollout, [old], in_state("completed"))
        assert any(
            f"the wave is optional: shadow: {none}" in d["sentence"] for d in found["decisions"]
        )
        return
    found = live_until(fleet, rollout, [old], in_state("paused"))
    assert found["reason"].startswith(f"paused for a person to decide: shadow: {none}")
    assert found["failure"]["word"] == "INCONCLUSIVE"
    assert not old.switched
    answer = fleet.operator.post(f"/api/v1/rollouts/{rollout}/resume", json={"reason": "so be it"})
    assert answer.status_code == 200, answer.text
    live_until(fleet, rollout, [old], in_state("completed"))
    assert old.switched == ["1.1.0"]


@only_sqlite
def test_a_paused_rollout_keeps_its_shadows_and_lets_no_other_in(
    fleet: Fleet, cams: list[ShadowCam]
) -> None:
    cams[2].current = "1.2.0"
    cams[2].check_in(S.HEALTHY)
    tried = {**TRIED, "min_sample": 2, "manual": True}
    rollout = create(fleet, policy=policy(tried, FIRST))
    live_until(fleet, rollout, cams[:2], lambda f: f["waves"][0]["in_shadow"] == 2)
    fleet.operator.post(f"/api/v1/rollouts/{rollout}/pause", json={"reason": "wait"})
    show(fleet, rollout)
    cams[2].current = "1.0.0"
    for _ in range(3):
        for cam in cams:
            cam.live()
    assert [cam.tried for cam in cams] == ["1.1.0", "1.1.0", "", "", ""]
    answer = fleet.operator.post(f"/api/v1/rollouts/{rollout}/abort", json={"reason": "enough"})
    assert answer.status_code == 200, answer.text
    show(fleet, rollout)
    assert {cam.device.runs()["detector"] for cam in cams} == {"1.0.0"}


def test_a_preview_says_how_many_can_take_part_and_that_none_is_switched(
    fleet: Fleet, cams: list[ShadowCam], clock: FakeClock
) -> None:
    old = ShadowCam(fleet.device("cam-9", line="a"), clock, knows=False)
    fresh = ShadowCam(fleet.device("cam-8", line="a"), clock)
    has_it = cams[4]
    has_it.current = "1.1.0"
    for cam in (old, has_it):
        cam.check_in(S.HEALTHY)
    assert fresh.device.check_in(facts=fresh.facts).status_code == 200
    waves = [{"percent": "100%", "shadow": {}}, {"count": 2}, {"percent": "100%"}]
    body = {"group": "cams", "model": "detector", "version": "1.1.0"}
    document = {"name": "p", "waves": waves}
    answer = fleet.operator.post("/api/v1/rollouts/preview", json={**body, "document": document})
    assert answer.status_code == 200, answer.text
    told = [(w["takes"], w["devices"], w["in_shadow"], w["able"]) for w in answer.json()["waves"]]
    assert told == [
        ("100 %, in shadow", 7, True, 4),
        ("2 devices", 2, False, None),
        ("100 %", 5, False, None),
    ]


@only_sqlite
def test_careful_goes_on_in_a_fleet_in_which_nobody_can_take_part(
    fleet: Fleet, clock: FakeClock
) -> None:
    fleet.group("cams", "line=a")
    fleet.assign("cams", "1.0.0")
    old = ShadowCam(fleet.device("cam-1", line="a"), clock, knows=False)
    old.check_in(S.HEALTHY)
    told = {"group": "cams", "model": "detector", "version": "1.1.0", "policy": "careful"}
    answer = fleet.operator.post("/api/v1/rollouts", json={**told, "start": True})
    assert answer.status_code == 201, answer.text
    rollout = answer.json()["id"]
    found = live_until(fleet, rollout, [old], lambda f: f["waves"][1]["healthy"] == 1)
    assert [w["state"] for w in found["waves"][:2]] == ["closed", "open"]
    opened = next(d for d in found["decisions"] if d["wave"] == 1)
    assert "wave 2 (first) opens: the wave is optional: shadow: no device" in opened["sentence"]
    assert old.switched == ["1.1.0"]

"""A device on which one variant fails and another works is no failed device of a rollout."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pilotwave_protocol.messages.check_in import Installed, ModelReport
from pilotwave_protocol.messages.directive import Directive
from pilotwave_protocol.messages.facts import AGENT_SHADOWS
from pilotwave_protocol.shadow import SHADOW
from pilotwave_protocol.states import ModelState, Reason
from pilotwave_server.fleet.state import FleetState
from pilotwave_server.rollouts.assignments.baselines import set_baseline
from pilotwave_server.rollouts.assignments.load_snapshot import RememberedSnapshot, read_snapshot
from pilotwave_server.rollouts.policies.choose import Choose
from tests.server.fleet_fixtures import Fleet
from tests.server.rollouts.choosing import NAMES, choosing
from tests.server.rollouts.test_engine_http import live_until, show
from tests.server.rollouts.worlds_db import AUTHOR

pytestmark = pytest.mark.long

__all__ = ["choosing"]

S = ModelState
RUNS = Installed("1.0.0", "ab" * 32, "onnx-fp32", 1)
GATES = [{"name": "install", "max_failure_rate": 0.01}]
CHOOSES = {"name": "p", "waves": [{"percent": 100, "gates": GATES}]}
CHOOSES |= {"choose": {"minimise": "latency"}}


class Board:
    """A device of a class of its own that runs what it is told, or tries it in shadow, but for
    variants that `fail`."""

    def __init__(self, fleet: Fleet, name: str, *, fail: tuple[str, ...] = ()) -> None:
        self.fleet, self.name, self.fail = fleet, name, fail
        self.device = fleet.device(name, line="b")
        self.tried: list[str] = []
        self.last: Directive | None = None
        self.at = RUNS
        facts = {**self.device.facts, "cpu.model": "another", AGENT_SHADOWS: True}
        assert self.device.check_in(facts=facts).status_code == 200
        self.say(ModelReport("detector", S.HEALTHY, RUNS))

    def say(self, report: ModelReport, seq: int = 0) -> None:
        assert self.device.check_in(report, directive_seq=seq).status_code == 200

    def live(self) -> None:
        self.fleet.context.get(FleetState).refresh()
        directive = self.device.directive()
        entry = next((e for e in directive.entries if e.version == "2.0.0"), None)
        if entry is None:
            self.say(ModelReport("detector", S.HEALTHY, self.at), directive.seq)
            return
        told = Installed(entry.version, entry.sha256, entry.variant, entry.counter)
        if told != self.at and told.variant not in self.tried[-1:]:
            self.tried.append(told.variant)
            self.say(ModelReport("detector", S.FETCHING, self.at, candidate=told), directive.seq)
        if told.variant in self.fail:
            reason = str(Reason.SELFTEST_MISMATCH)
            report = ModelReport("detector", S.FAILED, self.at, candidate=told, reason=reason)
        elif SHADOW in entry.conditions:
            report = ModelReport("detector", S.SHADOWING, self.at, candidate=told)
        else:
            self.at = told
            report = ModelReport("detector", S.HEALTHY, told)
        self.say(report, directive.seq)


@pytest.fixture
def others(choosing: Fleet) -> Fleet:
    choosing.group("others", "line=b")
    return choosing


def start(fleet: Fleet, **policy: Any) -> str:
    told = {"group": "others", "model": "detector", "version": "2.0.0", "start": True}
    answer = fleet.operator.post(
        "/api/v1/rollouts", json={**told, "document": {**CHOOSES, **policy}}
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.mark.parametrize("pace", [{}, {"max_in_flight": 3}])
def test_the_first_variant_fails_everywhere_and_the_rollout_completes(
    others: Fleet, pace: dict[str, int]
) -> None:
    boards = [Board(others, f"new-{n}", fail=("fp32",)) for n in range(3)]
    name = start(others, **({"pace": pace} if pace else {}))
    found = live_until(others, name, boards, lambda f: f["state"] != "running")  # type: ignore[arg-type]  # they live
    assert found["state"] == "completed", found["reason"]
    assert [b.tried for b in boards] == [["fp32", "int8"]] * 3
    wave = found["waves"][0]
    assert (wave["healthy"], wave["failed"]) == (3, 0)
    answer = others.operator.get("/api/v1/devices/new-0/why", params={"model": "detector"})
    assert "fp32 failed on this device; " in answer.json()["sentence"]


def test_a_device_on_which_every_variant_fails_counts_once(others: Fleet) -> None:
    boards = [Board(others, f"new-{n}", fail=NAMES) for n in range(3)]
    name = start(others)
    found = live_until(others, name, boards, lambda f: f["state"] == "rolled_back")  # type: ignore[arg-type]  # they live
    rows = others.operator.get(f"/api/v1/rollouts/{name}/devices").json()["items"]
    failed = [row for row in rows if row["outcome"] == "failed"]
    assert found["reason"].startswith("rolled back: install")
    assert failed
    for board in boards:
        if board.name in {row["device"] for row in failed}:
            assert board.tried[:3] == list(NAMES)


@pytest.mark.parametrize(("fail", "in_shadow"), [(("fp32",), 3), (NAMES, 0)])
def test_a_shadow_wave_tries_the_next_variant_where_one_fails(
    others: Fleet, fail: tuple[str, ...], in_shadow: int
) -> None:
    others.assign("others", "1.0.0")
    boards = [Board(others, f"new-{n}", fail=fail) for n in range(3)]
    tried = {"canary": {"devices": [b.name for b in boards]}, "shadow": {}, "gates": GATES}
    name = start(others, waves=[{**tried, "min_sample": 3}, *CHOOSES["waves"]])

    def settled(found: dict[str, Any]) -> bool:
        return found["waves"][0]["in_shadow"] == 3 or found["state"] == "rolled_back"

    found = live_until(others, name, boards, settled)  # type: ignore[arg-type]  # they live
    wave = found["waves"][0]
    assert wave["in_shadow"] == in_shadow
    assert (wave["failed"] == 0) is (in_shadow == 3)
    assert (found["state"] == "running") is (in_shadow == 3)
    assert {b.at for b in boards} == {RUNS}
    if in_shadow:
        assert [b.tried for b in boards] == [["fp32", "int8"]] * 3


def failed_on(fleet: Fleet, name: str) -> int:
    return int(show(fleet, name)["waves"][0]["failed"])


@pytest.mark.parametrize("by", ["device", "bulk", "rollout"])
def test_a_retry_begins_with_the_first_variant_again(others: Fleet, by: str) -> None:
    """Until then the device had failed all of them; the gate has to allow that."""
    board = Board(others, "new-0", fail=NAMES)
    gates = [{"name": "install", "max_failure_rate": 0.9}]
    name = start(others, waves=[{"percent": 100, "gates": gates, "soak": "1h"}])
    deadline = time.monotonic() + 60
    while not failed_on(others, name):
        assert time.monotonic() < deadline, board.tried
        board.live()
    assert board.tried[:3] == list(NAMES)
    board.fail, board.tried = ("fp32",), []
    paths: dict[str, tuple[str, dict[str, Any]]] = {
        "device": ("devices/new-0/models/detector/retry", {}),
        "bulk": ("devices/bulk", {"action": "retry", "model": "detector", "devices": ["new-0"]}),
        "rollout": (f"rollouts/{name}/retry", {"reason": "mended"}),
    }
    path, body = paths[by]
    answer = others.operator.post(f"/api/v1/{path}", json=body or None)
    assert answer.status_code in (200, 202), answer.text
    while not show(others, name)["waves"][0]["healthy"]:
        assert time.monotonic() < deadline, board.tried
        board.live()
    assert board.tried == ["fp32", "int8"]
    assert failed_on(others, name) == 0


def test_of_groups_that_choose_otherwise_the_newest_counts_and_is_named(choosing: Fleet) -> None:
    def why() -> str:
        answer = choosing.operator.get("/api/v1/devices/cam-9/why", params={"model": "detector"})
        return str(answer.json()["sentence"])

    assert "tiny: 1 ms" in why()
    assert "chooses by" not in why()
    choosing.group("newest", "line=a")
    given = {"group": "newest", "model": "detector", "version": "2.0.0", "actor": AUTHOR}
    with choosing.context.db.write() as session:
        snapshot = read_snapshot(session, RememberedSnapshot())
        now = choosing.registry.clock()
        set_baseline(session, snapshot, **given, now=now, choose=Choose("bytes"))  # type: ignore[arg-type]  # by name
    choosing.context.get(FleetState).refresh()
    assert "group newest chooses by bytes: fp32: " in why()

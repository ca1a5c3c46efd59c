"""How many models a device takes: said to whoever assigns one too many, held where nobody asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from pilotwave_protocol import signing
from pilotwave_protocol.messages.check_in import MAX_REPORTS
from pilotwave_protocol.messages.directive import (
    MAX_DIRECTIVE_BYTES,
    MAX_ENTRIES,
    SMALL_ENTRIES,
    Directive,
    parse_directive,
)
from pilotwave_server.rollouts.assignments.capacity import left_out, most_models
from pilotwave_server.rollouts.assignments.explain import why
from pilotwave_server.rollouts.assignments.resolve import Wait, resolve
from pilotwave_server.rollouts.assignments.snapshot import Baseline, DeviceView, FleetSnapshot
from tests.server.device_api.peer import ONNX, report
from tests.server.fleet_fixtures import Fleet, only_sqlite
from tests.server.registry.offline import new_key, publics
from tests.server.registry.registry import Registry
from tests.server.rollouts import worlds

NEW = {"runtime.onnxruntime": "1.20", "max_models": MAX_ENTRIES}
OLD = {"runtime.onnxruntime": "1.20"}


def names_of(count: int) -> list[str]:
    return [f"pump-{n:04d}-{'v' * 54}" for n in range(count)]


def world(count: int) -> FleetSnapshot:
    models = names_of(count)
    return FleetSnapshot(
        fleet="acme",
        revision=1,
        groups=worlds.GROUPS,
        versions={(m, "1.0.0"): worlds.release(m) for m in models},
        baselines={m: (Baseline(1, "list", m, "1.0.0", 1),) for m in models},
    )


@pytest.mark.parametrize(("facts", "most"), [(OLD, SMALL_ENTRIES), (NEW, MAX_ENTRIES)])
def test_what_a_device_does_not_take_is_held_and_the_rest_is_ordered(
    facts: dict[str, object], most: int
) -> None:
    snapshot = world(500)
    last = names_of(500)[-1]
    device = DeviceView("gw", frozenset({1}), facts, pins={last: "1.0.0"})
    found = resolve(device, snapshot)
    assert len(found.entries) == most
    assert last in {e.model for e in found.entries}  # an operator's word comes first
    held = [s for s in found.steps if s.hold]
    assert {s.hold.reason for s in held} == {Wait.TOO_MANY_MODELS}
    assert len(held) == 500 - most
    told = why(device, snapshot, model=held[0].candidate.model, state="enrolled")
    assert f"asked to run 500 models and its agent takes {most} models" in told.candidates[-1][1]


def test_a_directive_of_long_conditions_stays_within_its_bytes() -> None:
    snapshot = world(MAX_ENTRIES)
    device = DeviceView("gw", frozenset({1}), NEW)
    entries = resolve(device, snapshot).entries
    assert len(entries) == MAX_ENTRIES
    long = [replace(e, conditions={"windows": ["x" * 2000]}) for e in entries]
    out = left_out(long, NEW)
    assert out
    assert "a directive of 262144 bytes" in next(iter(out.values()))
    kept = tuple(e for e in long if e.model not in out)
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    raw = Directive("acme", "gw", 1, moment, moment, 1, kept).to_bytes()
    assert len(raw) <= MAX_DIRECTIVE_BYTES
    assert len(parse_directive(raw).entries) == len(kept)


@pytest.mark.parametrize("said", [None, True, "999", -1, 0, 3.5])
def test_a_fact_that_says_nothing_useful_means_an_older_agent(said: object) -> None:
    assert most_models({} if said is None else {"max_models": said}) == SMALL_ENTRIES


def test_no_fact_claims_more_than_a_directive_holds() -> None:
    assert most_models({"max_models": 10**9}) == MAX_ENTRIES


def create_models(registry: Registry, models: list[str]) -> None:
    """In one submission: a document for each would take its time."""
    targets = registry.offline.next_targets(registry.targets())
    roles = {}
    for model in models:
        key = registry.offline.publishers.setdefault(model, new_key())
        signing.delegate(targets.signed, model, signing.RoleKeys(publics([key]), 1))
        roles[model] = signing.sign(signing.make_role(model, now=registry.clock()), [key])
    registry.submit(targets=registry.offline.sign_targets(targets), roles=roles)


@pytest.mark.timeout(400)
@only_sqlite
def test_the_65th_model_is_refused_where_it_is_assigned_pinned_or_rolled_out(
    fleet: Fleet,
) -> None:
    device = fleet.device("cam-1", site="berlin")
    fleet.group("berlin", "site=berlin")
    fleet.group("paris", "site=paris")
    create_models(fleet.registry, [f"m{n}" for n in range(SMALL_ENTRIES)])
    for n in range(SMALL_ENTRIES):
        fleet.registry.publish(f"m{n}", "1.0.0")
        fleet.assign("berlin", "1.0.0", f"m{n}")
    sentence = (
        "cam-1 would be asked to run 65 models; its agent takes 64. Unassign models from it, or"
        " update its agent"
    )
    put = fleet.operator.put("/api/v1/groups/berlin/baselines/detector", json={"version": "1.0.0"})
    assert (put.status_code, put.json()["detail"]) == (409, sentence)
    pinned = fleet.operator.post(
        "/api/v1/devices/cam-1/models/detector/pin", json={"version": "1.0.0", "reason": "x"}
    )
    assert (pinned.status_code, pinned.json()["code"]) == (409, "too_many_models")
    wish = {
        "group": "berlin",
        "model": "detector",
        "version": "1.0.0",
        "policy": "everyone-now",
        "start": True,
    }
    rolled = fleet.operator.post("/api/v1/rollouts", json=wish)
    assert (rolled.status_code, rolled.json()["code"]) == (409, "too_many_models")
    # a version that comes after another is no model more
    fleet.registry.publish("m0", "1.1.0")
    fleet.assign("berlin", "1.1.0", "m0")
    # a label brings the 65th: it is held with a reason, and the device's directive stays readable
    fleet.group("spare", "spare=yes")
    fleet.assign("spare", "1.0.0")
    labels = {"labels": {"site": "berlin", "spare": "yes"}}
    assert fleet.operator.patch("/api/v1/devices/cam-1", json=labels).status_code == 200
    assert len(device.runs()) == SMALL_ENTRIES
    asked = fleet.operator.get("/api/v1/devices/cam-1/why", params={"model": "m9"}).json()
    assert asked["candidates"][-1]["hold"] == "too_many_models"
    # an agent that takes more says so, and gets all of them
    assert device.check_in(facts={**ONNX, "max_models": MAX_ENTRIES}).status_code == 200
    assert len(device.runs()) == SMALL_ENTRIES + 1


def test_a_device_that_knows_many_models_may_still_check_in(fleet: Fleet) -> None:
    device = fleet.device("cam-1")
    models = [report("1.0.0", model=name, detail="d" * 200) for name in names_of(MAX_REPORTS)]
    assert device.check_in(*models).status_code == 200

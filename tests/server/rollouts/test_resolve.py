"""What `resolve` promises, over random fleets, and each rule once by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from pilotwave_protocol.fields import Scalar
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import variant_fits
from pilotwave_server.devices.facts import capabilities
from pilotwave_server.rollouts.assignments.explain import why
from pilotwave_server.rollouts.assignments.resolve import Candidate, Wait, not_in_shadow, resolve
from pilotwave_server.rollouts.assignments.snapshot import (
    Baseline,
    DeviceView,
    FleetSnapshot,
    OpenShadow,
    Quarantine,
    RunningRollout,
)
from pilotwave_server.rollouts.policies.policy import Pace
from pilotwave_server.rollouts.states import RolloutState
from tests.server.rollouts import worlds

ONNX: dict[str, Scalar] = {"runtime.onnxruntime": "1.20", "arch": "x86_64"}
BOTH = ("1.0.0", "1.1.0")


@st.composite
def worlds_with_device(draw: st.DrawFn) -> tuple[FleetSnapshot, DeviceView]:
    snapshot = draw(worlds.snapshots())
    device = worlds.device_in(
        snapshot,
        draw(worlds.devices_labels),
        draw(worlds.devices_facts),
        name=draw(worlds.names),
        member_of=draw(worlds.members),
        pins=draw(worlds.pin_sets),
        leases=draw(worlds.lease_sets),
        shadows=draw(worlds.let_in),
    )
    return snapshot, device


@given(worlds_with_device())
def test_nothing_taken_back_or_unfit_is_ever_assigned(
    world: tuple[FleetSnapshot, DeviceView],
) -> None:
    snapshot, device = world
    for entry in resolve(device, snapshot).entries:
        view = snapshot.versions[entry.model, entry.version]
        assert (view.denied, view.yanked, view.listed) == (None, None, True)
        assert entry.counter >= snapshot.floors.get(entry.model, 0)
        assert not any(
            (q.model, q.version) == (entry.model, entry.version)
            and (q.group_id is None or q.group_id in device.groups)
            for q in snapshot.quarantines
        )
        assert int(device.facts.get("agent.manifest", 1)) >= view.schema
        chosen = next(v for v in view.variants if v.name == entry.variant)
        assert variant_fits(chosen, device.facts).ok


@given(worlds_with_device())
def test_pin_beats_rollout_and_rollout_beats_baseline(
    world: tuple[FleetSnapshot, DeviceView],
) -> None:
    snapshot, device = world
    order = ["pin", "rollout", "baseline"]
    steps = resolve(device, snapshot).steps
    for model in {s.candidate.model for s in steps}:
        ranks = [order.index(s.candidate.reason) for s in steps if s.candidate.model == model]
        assert ranks == sorted(ranks)


@given(worlds_with_device())
def test_only_the_last_candidate_of_a_model_is_chosen(
    world: tuple[FleetSnapshot, DeviceView],
) -> None:
    resolution = resolve(world[1], world[0])
    chosen = [s.candidate for s in resolution.steps if s.hold is None]
    assert [(c.model, c.version) for c in chosen] == [
        (e.model, e.version) for e in resolution.entries
    ]
    for model in {s.candidate.model for s in resolution.steps}:
        chain = [s for s in resolution.steps if s.candidate.model == model]
        assert all(s.hold and s.hold.sentence for s in chain[:-1])


@given(worlds_with_device())
def test_a_version_is_tried_in_shadow_beside_what_serves_without_it(
    world: tuple[FleetSnapshot, DeviceView],
) -> None:
    snapshot, device = world
    resolution = resolve(device, snapshot)
    untried = {
        model: tuple(replace(rollout, shadow=None) for rollout in found)
        for model, found in snapshot.rollouts.items()
    }
    serves = {e.model: e for e in resolve(device, replace(snapshot, rollouts=untried)).entries}
    beside = {s.candidate.model: s.beside for s in resolution.steps if s.beside is not None}
    for entry in resolution.entries:
        if entry.model not in beside:
            assert entry == serves[entry.model]
            continue
        event("tried in shadow")
        assert entry.conditions["shadow"] == worlds.TERMS
        assert device.facts["shadows"] is True
        assert serves[entry.model].version == beside[entry.model] != entry.version
    assert serves.keys() == {e.model for e in resolution.entries}


@given(worlds_with_device())
def test_same_question_has_the_same_answer(world: tuple[FleetSnapshot, DeviceView]) -> None:
    snapshot, device = world
    again = replace(device, facts=dict(reversed(list(device.facts.items()))))
    assert resolve(device, snapshot) == resolve(again, snapshot)


@given(worlds_with_device())
def test_device_with_the_same_groups_and_capabilities_gets_the_same_set(
    world: tuple[FleetSnapshot, DeviceView],
) -> None:
    """This is what lets a server answer a million devices from a few resolutions."""
    snapshot, device = world
    bare = replace(device, facts=dict(capabilities(device.facts, snapshot.asked)))
    assert resolve(bare, snapshot) == resolve(device, snapshot)


@given(worlds_with_device(), worlds.devices_labels, worlds.devices_labels, worlds.devices_facts)
def test_change_of_labels_matters_through_groups_only(
    world: tuple[FleetSnapshot, DeviceView],
    before: dict[str, str],
    after: dict[str, str],
    facts: dict[str, Scalar],
) -> None:
    snapshot, _ = world
    old = worlds.device_in(snapshot, before, facts)
    new = worlds.device_in(snapshot, after, facts)
    if old.groups == new.groups:
        assert resolve(old, snapshot) == resolve(new, snapshot)
    else:
        gained_or_lost = old.groups ^ new.groups
        touched = {
            model
            for model in worlds.MODELS
            for order in [
                *(b.group_id for b in snapshot.baselines.get(model, ())),
                *(r.group_id for r in snapshot.rollouts.get(model, ())),
            ]
            if order in gained_or_lost
        } | {q.model for q in snapshot.quarantines}
        was = {e.model: e for e in resolve(old, snapshot).entries}
        now = {e.model: e for e in resolve(new, snapshot).entries}
        assert {m for m in {*was, *now} if was.get(m) != now.get(m)} <= touched


@given(worlds_with_device(), worlds.models)
def test_denying_the_assigned_version_changes_that_model_alone(
    world: tuple[FleetSnapshot, DeviceView], model: str
) -> None:
    snapshot, device = world
    before = {e.model: e for e in resolve(device, snapshot).entries}
    if model not in before:
        return
    key = (model, before[model].version)
    denied = replace(snapshot.versions[key], denied="bad")
    after = resolve(device, replace(snapshot, versions={**snapshot.versions, key: denied}))
    now = {e.model: e for e in after.entries}
    assert now.get(model) is None or now[model].version != key[1]
    assert {m: e for m, e in now.items() if m != model} == {
        m: e for m, e in before.items() if m != model
    }


def fleet(**changes: object) -> FleetSnapshot:
    """One group (2) that was told to run 1.0.0 and then 1.1.0 of the detector."""
    snapshot = FleetSnapshot(
        fleet="f",
        revision=10,
        groups=worlds.GROUPS,
        versions={("detector", v): worlds.release(version=v) for v in BOTH},
        baselines={
            "detector": (
                Baseline(2, "berlin", "detector", "1.1.0", 9),
                Baseline(2, "berlin", "detector", "1.0.0", 8),
            )
        },
    )
    return replace(snapshot, **changes)  # type: ignore[arg-type]  # fields by name


def cam(**changes: object) -> DeviceView:
    device = DeviceView("cam-1", groups=frozenset({2}), facts=ONNX)
    return replace(device, **changes)  # type: ignore[arg-type]  # fields by name


def assigned(device: DeviceView, snapshot: FleetSnapshot) -> list[tuple[str, str]]:
    return [(e.version, e.reason) for e in resolve(device, snapshot).entries]


def test_newest_baseline_wins() -> None:
    assert assigned(cam(), fleet()) == [("1.1.0", "baseline")]


def test_device_outside_every_group_gets_nothing() -> None:
    assert resolve(cam(groups=frozenset()), fleet()).steps == ()


def test_denied_baseline_gives_way_to_the_one_before_and_says_so() -> None:
    versions = {
        **fleet().versions,
        ("detector", "1.1.0"): worlds.release(version="1.1.0", denied="burns"),
    }
    resolution = resolve(cam(), fleet(versions=versions))
    assert [e.version for e in resolution.entries] == ["1.0.0"]
    hold = resolution.steps[0].hold
    assert hold is not None
    assert (hold.reason, "burns" in hold.sentence) == (Reason.DENIED, True)


def test_pin_holds_against_the_baseline() -> None:
    assert assigned(cam(pins={"detector": "1.0.0"}), fleet()) == [("1.0.0", "pin")]


def test_quarantine_of_a_group_comes_before_a_pin() -> None:
    snapshot = fleet(quarantines=(Quarantine(2, "detector", "1.0.0", "overheats"),))
    resolution = resolve(cam(pins={"detector": "1.0.0"}), snapshot)
    assert [(e.version, e.reason) for e in resolution.entries] == [("1.1.0", "baseline")]
    hold = resolution.steps[0].hold
    assert hold is not None
    assert hold.sentence == "detector 1.0.0 is quarantined for berlin: overheats"


def test_quarantine_of_another_group_does_not_concern_the_device() -> None:
    snapshot = fleet(quarantines=(Quarantine(1, "detector", "1.1.0", "overheats"),))
    assert assigned(cam(), snapshot) == [("1.1.0", "baseline")]


def test_version_below_the_floor_is_held() -> None:
    resolution = resolve(cam(pins={"detector": "1.0.0"}), fleet(floors={"detector": 2}))
    assert [s.hold and s.hold.reason for s in resolution.steps] == [Reason.BELOW_FLOOR, None]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, Reason.RUNTIME_MISSING),
        ({"runtime.onnxruntime": "1.20", "arch": "armv7l"}, Reason.DOES_NOT_FIT),
    ],
)
def test_device_that_no_variant_fits_keeps_what_it_has_and_learns_why(
    facts: dict[str, Scalar], reason: Reason
) -> None:
    only = worlds.release(variants=(worlds.variant("x", arch=("x86_64",)),))
    snapshot = fleet(versions={("detector", "1.0.0"): only})
    resolution = resolve(cam(facts=facts), snapshot)
    assert resolution.entries == ()
    assert [s.hold and s.hold.reason for s in resolution.steps] == [Reason.TARGET_UNKNOWN, reason]


def test_an_agent_that_cannot_read_the_manifest_is_never_offered_it_and_told_why() -> None:
    newer = worlds.release(
        version="1.1.0", variants=(worlds.variant("int8", requires=worlds.VNNI),)
    )
    snapshot = fleet(versions={("detector", "1.1.0"): newer})
    fits = {**ONNX, "cpu.dotprod": True}
    assert assigned(cam(facts={**fits, "agent.manifest": 2}), snapshot) != []
    for old in ({}, {"agent.manifest": 1}, {"agent.manifest": "new"}):
        resolution = resolve(cam(facts={**fits, **old}), snapshot)
        assert resolution.entries == ()
        (hold,) = [s.hold for s in resolution.steps if s.hold and s.candidate.version == "1.1.0"]
        assert hold.reason is Wait.AGENT_TOO_OLD
        assert "detector 1.1.0 has a manifest of schema 2" in hold.sentence
        assert "update the agent first" in hold.sentence


def test_device_that_forbids_unsafe_formats_is_not_offered_one() -> None:
    unsafe = replace(worlds.variant("pickle"), unsafe_format=True)
    snapshot = fleet(versions={("detector", "1.1.0"): worlds.release(variants=(unsafe,))})
    assert resolve(cam(facts={**ONNX, "allow_unsafe_formats": False}), snapshot).entries == ()
    assert resolve(cam(), snapshot).entries != ()


def test_first_fitting_variant_in_the_publishers_order_is_chosen() -> None:
    both = worlds.release(variants=(worlds.variant("vino", "openvino"), worlds.variant("onnx")))
    snapshot = fleet(versions={("detector", "1.1.0"): both})
    assert [e.variant for e in resolve(cam(), snapshot).entries] == ["onnx"]


def test_rollout_takes_the_device_of_its_open_waves() -> None:
    rollout = RunningRollout("r1", 1, 2, "detector", "1.0.0", named=frozenset({"cam-1"}))
    snapshot = fleet(rollouts={"detector": (rollout,)})
    assert assigned(cam(), snapshot) == [("1.0.0", "rollout")]
    assert assigned(cam(name="cam-2"), snapshot) == [("1.1.0", "baseline")]


def test_retry_shows_in_the_entry() -> None:
    assert [e.attempt for e in resolve(cam(attempts={"detector": 2}), fleet()).entries] == [2]


KNOWS: dict[str, Scalar] = {**ONNX, "shadows": True}
# a case: what differs of the device, of the rollout, of its shadow; what the device is told
SHADOW_CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "let in": ({}, {}, {}, "should try detector 1.1.0"),
    "paused, and let in": ({}, {"state": RolloutState.PAUSED}, {}, "should try detector 1.1.0"),
    "over, and let in": ({}, {}, {"lets_in": False}, "should try detector 1.1.0"),
    "old agent": ({"facts": ONNX}, {}, {}, "the agent there cannot do that: update the agent"),
    "other groups": ({"groups": frozenset({1, 2, 3})}, {"group_id": 3}, {}, "should try"),
    "not let in": ({"shadows": frozenset()}, {}, {}, "joins once it reports 1.0.0 as healthy"),
    "not let in, paused": (
        {"shadows": frozenset()},
        {"state": RolloutState.PAUSED},
        {},
        "r1 is paused, and this device had not started",
    ),
    "late": ({"shadows": frozenset()}, {}, {"lets_in": False}, "up to 0.0 % of the group"),
    "runs another": (
        {"shadows": frozenset({(1, "0.9.0")})},
        {},
        {},
        "let in while it ran 0.9.0, and is told to run 1.0.0",
    ),
}


def shadow_case(case: str) -> tuple[FleetSnapshot, DeviceView]:
    """A device of group 2, whose baseline is 1.0.0, and a rollout that tries 1.1.0 in shadow."""
    device, rollout, shadow, _ = SHADOW_CASES[case]
    terms = OpenShadow(worlds.TERMS, **{"named": frozenset({"cam-1"}), "lets_in": True, **shadow})
    known: dict[str, Any] = {"group_id": 2, "open": "wave tried", "shadow": terms, **rollout}
    r1 = RunningRollout("r1", 1, model="detector", version="1.1.0", **known)
    baseline = Baseline(2, "b", "detector", "1.0.0", 9)
    snapshot = fleet(rollouts={"detector": (r1,)}, baselines={"detector": (baseline,)})
    of = {"facts": KNOWS, "shadows": frozenset({(1, "1.0.0")}), "groups": frozenset({1, 2})}
    return snapshot, cam(**{**of, **device})


@pytest.mark.parametrize("case", SHADOW_CASES)
def test_version_is_tried_in_shadow_only_where_it_may(case: str) -> None:
    snapshot, device = shadow_case(case)
    told = SHADOW_CASES[case][3]
    found = why(device, snapshot, model="detector", state="enrolled")
    assert told in " ".join([found.sentence, *(said for _, said in found.candidates)])
    (entry,) = resolve(device, snapshot).entries
    if told.startswith("should try"):
        assert (entry.version, entry.rollout, entry.reason) == ("1.1.0", "r1", "rollout")
        assert entry.conditions == {"shadow": worlds.TERMS}
    else:
        assert (entry.version, entry.rollout, entry.conditions) == ("1.0.0", None, {})


def test_nothing_is_tried_beside_nothing_or_beside_itself() -> None:
    snapshot, device = shadow_case("let in")
    for baselines in ((), (Baseline(2, "b", "detector", "1.1.0", 9),)):
        of = replace(snapshot, baselines={"detector": baselines})
        (step, *_) = resolve(device, of).steps
        assert step.hold is not None
        assert step.hold.sentence.endswith("no other version that it could be beside")
        assert all("shadow" not in e.conditions for e in resolve(device, of).entries)


def test_tie_holds_no_version_that_is_only_tried() -> None:
    snapshot, device = shadow_case("let in")
    (tried,) = snapshot.rollouts["detector"]
    tied = replace(tried, conditions={"together": ["tracker"], "idle": True})
    of = replace(snapshot, rollouts={"detector": (tied,)})
    knows = replace(device, facts={**KNOWS, "agent.together": True})
    (entry,) = resolve(knows, of).entries
    assert entry.conditions == {"idle": True, "shadow": worlds.TERMS}


def test_device_that_a_wave_switches_is_not_in_shadow_any_more() -> None:
    snapshot, device = shadow_case("let in")
    (tried,) = snapshot.rollouts["detector"]
    of = replace(snapshot, rollouts={"detector": (replace(tried, named=frozenset({"cam-1"})),)})
    (entry,) = resolve(device, of).entries
    assert (entry.version, entry.conditions) == ("1.1.0", {})


def test_device_that_waits_its_turn_to_switch_goes_on_trying_the_version() -> None:
    snapshot, device = shadow_case("over, and let in")
    (tried,) = snapshot.rollouts["detector"]
    paced = replace(tried, named=frozenset({"cam-1"}), pace=Pace(max_in_flight=1))
    of = replace(snapshot, rollouts={"detector": (paced,)})
    (entry,) = resolve(device, of).entries
    assert (entry.version, entry.conditions) == ("1.1.0", {"shadow": worlds.TERMS})
    (entry,) = resolve(replace(device, leases=frozenset({1})), of).entries
    assert (entry.version, entry.conditions) == ("1.1.0", {})
    never_tried = resolve(replace(device, shadows=frozenset()), of)
    assert never_tried.steps[0].hold is not None
    assert never_tried.steps[0].hold.reason is Wait.NEEDS_LEASE


def test_agent_is_never_tried_beside_itself() -> None:
    snapshot, device = shadow_case("let in")
    (tried,) = snapshot.rollouts["detector"]
    candidate = Candidate("rollout", AGENT_MODEL, "2.0.0", "b", replace(tried, model=AGENT_MODEL))
    hold = not_in_shadow(device, candidate, "1.0.0")
    assert hold is not None
    assert hold.sentence.endswith("which no agent can do with itself")

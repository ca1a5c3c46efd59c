"""What a person may write as a policy, and what each mistake is answered with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pilotwave_protocol.durations import span
from pilotwave_server.rollouts.policies.faults import PolicyInvalid
from pilotwave_server.rollouts.policies.paired import (
    Disagreement,
    Errors,
    Latency,
    Memory,
    PairedGate,
    Score,
)
from pilotwave_server.rollouts.policies.parse import parse_policy
from pilotwave_server.rollouts.policies.policy import (
    Canary,
    Conditions,
    InstallGate,
    MetricGate,
    OnFailure,
    Policy,
    Wave,
    Window,
)
from pilotwave_server.rollouts.policies.shadow import ShadowPart
from pilotwave_server.rollouts.policies.stored import plain_policy, store_policy, stored_policy
from pilotwave_server.rollouts.policies.wave_words import rule_of
from tests.server.device_api.peer import code_of
from tests.server.fleet_fixtures import Fleet

ALL: dict[str, Any] = {"percent": "100%"}
FULL: dict[str, Any] = {
    "name": "careful",
    "description": "As slow as it gets.",
    "waves": [
        {"name": "lab", "canary": {"selector": "site=lab"}, "soak": "1h30m", "min_sample": 3},
        {"count": 5, "soak": "30m", "manual": True},
        {
            "percent": "10%",
            "gates": [
                {"max_failure_rate": "2%", "slice_by": ["hw"]},
                {"metric": "latency_ms", "statistic": "p99", "min_effect": "25%"},
            ],
        },
        ALL,
    ],
    "on_failure": "pause",
    "pace": {"max_in_flight": 50, "min_available": "80%"},
    "windows": [{"cron": "0 2 * * MON-FRI", "duration": "3h", "timezone": "Europe/Berlin"}],
    "conditions": {"power": "external", "battery_min": "30%", "idle": True},
    "deadlines": {"silent": "10m"},
    "approval": True,
}


def _shadow(percent: str, **terms: Any) -> dict[str, Any]:
    return {"percent": percent, "shadow": terms}


def faults(data: Any) -> dict[str, str]:
    with pytest.raises(PolicyInvalid) as caught:
        parse_policy(data)
    return {fault.path: fault.message for fault in caught.value.faults}


def with_wave(**wave: Any) -> dict[str, Any]:
    return {"name": "p", "waves": [wave, ALL]}


def test_every_part_of_a_policy_is_read() -> None:
    policy = parse_policy(FULL)
    lab, five, tenth, everyone = policy.waves
    assert (lab.canary, lab.soak_s) == (Canary(selector="site=lab"), 5400)
    assert (five.name, five.count, five.manual) == ("5 devices", 5, True)
    assert tenth.gates[0] == InstallGate(max_failure_rate=0.02, slice_by=("hw",))
    assert tenth.gates[1] == MetricGate(
        name="latency_ms p99", metric="latency_ms", statistic="p99", min_effect=0.25
    )
    assert (everyone.name, everyone.percent) == ("100%", 100)
    assert (policy.on_failure, policy.approval) == (OnFailure.PAUSE, True)
    assert (policy.pace.max_in_flight, policy.pace.min_available) == (50, 0.8)
    assert policy.windows == (Window("0 2 * * MON-FRI", 10_800, "Europe/Berlin"),)
    assert policy.conditions == Conditions(power="external", battery_min=30, idle=True)
    assert policy.deadlines.silent_s == 600


def test_what_the_server_wrote_is_read_back_the_same() -> None:
    policy = parse_policy(FULL)
    assert parse_policy(plain_policy(policy)) == policy == stored_policy(store_policy(policy))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"disagreement": {"at_most": "3%"}}, PairedGate("disagreement", Disagreement(0.03))),
        (
            {"latency": {"paired": True, "min_effect": "7%"}, "min_devices": 3},
            PairedGate("latency", latency=Latency(min_effect=0.07), min_devices=3),
        ),
        (
            {"score": {"worse": "higher"}, "name": "loss", "alpha": "0.5%"},
            PairedGate("loss", score=Score(worse="higher"), alpha=0.005),
        ),
        ({"errors": {}}, PairedGate("errors", errors=Errors(0.0001))),
        ({"memory": {"at_most": 2}}, PairedGate("memory", memory=Memory(2.0))),
    ],
)
def test_gate_of_a_shadow_wave_is_read_and_what_was_written_of_it_too(
    written: dict[str, Any], expected: PairedGate
) -> None:
    gate = TypeAdapter(PairedGate)
    strict = {"checks": True}
    assert gate.validate_python(written, context=strict) == expected
    stored = gate.dump_python(expected, mode="json")
    assert gate.validate_python(stored, context=strict) == gate.validate_python(stored) == expected


def test_what_an_older_server_stored_is_read_with_the_defaults() -> None:
    waves = [{"name": "all", "percent": 100, "gates": [{"metric": "latency_ms", "name": "slow"}]}]
    found = stored_policy({"name": "p", "waves": waves, "pace": {"of_old": 1}, "of_old": []})
    gate = MetricGate("slow", "latency_ms")
    assert found == Policy("p", (Wave("all", percent=100, gates=(gate,)),))


def test_what_today_would_be_refused_is_still_read_where_it_was_stored() -> None:
    stored = store_policy(parse_policy(FULL))
    stored["waves"][0]["soak_s"] = 1_000 * 86_400
    assert stored_policy(stored).waves[0].soak_s == 86_400_000


def test_stored_metric_gate_that_is_broken_does_not_pass_for_an_install_gate() -> None:
    waves = [{"name": "all", "percent": 100, "gates": [{"metric": "latency_ms", "alpha": "?"}]}]
    with pytest.raises(ValueError, match="alpha"):
        stored_policy({"name": "p", "waves": waves})


def test_sizes_rise_among_shadow_waves_and_among_those_that_switch() -> None:
    waves = [_shadow("5%"), _shadow("20%", share="100%", cpu="25%", optional=True)]
    policy = parse_policy({"name": "p", "waves": [*waves, {"percent": "1%"}, ALL]})
    first, second, switching, _ = policy.waves
    assert (first.name, first.shadow) == ("shadow 5%", ShadowPart())
    assert second.shadow == ShadowPart(share=1, cpu=0.25, min_calls=500, optional=True)
    assert (switching.name, switching.shadow) == ("1%", None)
    assert policy.first_switching == 2
    assert [policy.in_shadow(n) for n in (-1, 0, 1, 2)] == [False, True, True, False]
    assert second.shadow.condition == {"share": 1, "cpu": 0.25, "min_calls": 500}
    assert [rule_of(w) for w in policy.waves[1:3]] == ["20 %, in shadow", "1 %"]
    assert parse_policy(plain_policy(policy)) == policy == stored_policy(store_policy(policy))


def test_what_is_no_mapping_is_told_once() -> None:
    assert list(faults([])) == [""]
    data = {"name": "p", "waves": [1, 2, ALL], "windows": ["always"]}
    assert list(faults(data)) == ["waves[0]", "waves[1]", "windows[0]"]


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        ([], "", "expected a mapping"),
        ({}, "name", "missing"),
        ({}, "waves", "at least one wave"),
        ({"name": "Big", "waves": [ALL]}, "name", "small letters"),
        ({"name": "a" * 65, "waves": [ALL]}, "name", "at most 64"),
        ({"name": "p", "waves": {}}, "waves", "expected a list"),
        ({"name": "p", "waves": "all"}, "waves", "expected a list; got 'all'"),
        ({"name": "p", "waves": [ALL], "wave": 1}, "wave", "did you mean `waves`?"),
        ({"name": "p", "waves": [ALL], "zzz": 1}, "zzz", "expected one of name, waves"),
        ({"name": "p", "waves": [{"percent": 50}]}, "waves[0]", "end at 100%"),
        ({"name": "p", "waves": [ALL, {"count": 5}]}, "waves[1]", "end at 100%"),
        ({"name": "p", "waves": [ALL, ALL]}, "waves[1].percent", "more than the 100"),
        (with_wave(), "waves[0]", "exactly one of canary, count, percent; got none"),
        (with_wave(count=1, percent=5), "waves[0]", "got count and percent"),
        (with_wave(percent="110%"), "waves[0].percent", "to 100%; got '110%'"),
        (with_wave(percent=True), "waves[0].percent", "got true"),
        (with_wave(percent=0), "waves[0].percent", "percentage"),
        (with_wave(count="5"), "waves[0].count", "whole number from 1"),
        (with_wave(count=True), "waves[0].count", "got true"),
        (with_wave(count=10**30), "waves[0].count", "whole number"),
        (with_wave(count=1, soak=1800), "waves[0].soak", "as `90s`, `30m`"),
        (with_wave(count=1, soak="1.5h"), "waves[0].soak", "got '1.5h'"),
        (with_wave(count=1, soak="30m", soak_s=5), "waves[0].soak_s", "not both"),
        (with_wave(count=1, name="a\nb"), "waves[0].name", "one line"),
        (with_wave(count=1, name="100%"), "waves[1].name", "is there twice"),
        (with_wave(count=1, manual="yes"), "waves[0].manual", "true or false; got 'yes'"),
        (with_wave(canary={}), "waves[0].canary", "exactly one of devices"),
        (with_wave(canary="site=lab"), "waves[0].canary", "expected a mapping"),
        (with_wave(canary={"selector": "a=="}), "waves[0].canary.selector", "position"),
        (with_wave(canary={"devices": ["Cam"]}), "waves[0].canary.devices[0]", "device name"),
        (with_wave(canary={"devices": ["a", "a"]}), "waves[0].canary.devices[1]", "twice"),
        (
            with_wave(count=1, gates=[{"max_failure_rate": "200%"}]),
            "waves[0].gates[0].max_failure_rate",
            "got '200%'",
        ),
        (with_wave(count=1, gates=[{"alpha": 0}]), "waves[0].gates[0].alpha", "a share"),
        (with_wave(count=1, gates=[{}, {}]), "waves[0].gates[1].name", "twice"),
        (
            with_wave(count=1, gates=[{"metric": "latency_ms", "statistic": "p100"}]),
            "waves[0].gates[0].statistic",
            "`p95`",
        ),
        (with_wave(count=1, gates=[{"worse": "up"}]), "waves[0].gates[0].worse", "unknown key"),
        (
            with_wave(count=1, gates=[{"errors": {}}]),
            "waves[0].gates[0]",
            "expected `shadow` in its wave",
        ),
        (
            with_wave(count=1, shadow={}, gates=[{"metric": "latency_ms"}]),
            "waves[0].gates[0]",
            "expected one of disagreement, latency",
        ),
        (
            with_wave(count=1, shadow={}, gates=[{"errors": {}, "memory": {}}]),
            "waves[0].gates[0]",
            "got errors and memory",
        ),
        (
            with_wave(count=1, shadow={}, gates=[{"latency": {"paired": False}}]),
            "waves[0].gates[0].latency.paired",
            "expected true",
        ),
        (
            with_wave(count=1, shadow={}, gates=[{"errors": {"at_most": 0}}]),
            "waves[0].gates[0].errors.at_most",
            "a share",
        ),
        (
            with_wave(count=1, shadow={}, gates=[{"errors": {}}, {"errors": {"at_most": "1%"}}]),
            "waves[0].gates[1].name",
            "twice",
        ),
        ({**FULL, "on_failure": "ignore"}, "on_failure", "`rollback` or `pause`"),
        ({**FULL, "pace": {"ramp_factor": 3}}, "pace.ramp_factor", "`ramp_start`"),
        ({**FULL, "pace": {"min_available": "100%"}}, "pace.min_available", "a share"),
        ({**FULL, "conditions": {"power": "battery"}}, "conditions.power", "`external`"),
        ({**FULL, "conditions": {"battery_min": 101}}, "conditions.battery_min", "percentage"),
        ({**FULL, "deadlines": {"silent": "5s"}}, "deadlines.silent", "from 1m"),
        ({**FULL, "windows": [{"cron": "0 2 * * *"}]}, "windows[0].duration", "missing"),
        ({**FULL, "windows": [{"duration": "1h"}]}, "windows[0].cron", "missing"),
        ({**FULL, "approval": None, "name": None}, "name", "missing"),
        (with_wave(count=1, shadow=True), "waves[0].shadow", "expected a mapping"),
        (with_wave(count=1, shadow={"share": 0}), "waves[0].shadow.share", "a share"),
        (with_wave(count=1, shadow={"cpu": "900%"}), "waves[0].shadow.cpu", "a share"),
        (with_wave(count=1, shadow={"min_calls": 0}), "waves[0].shadow.min_calls", "whole"),
        (with_wave(count=1, shadow={"calls": 9}), "waves[0].shadow.calls", "unknown key"),
        (with_wave(shadow={}), "waves[0]", "exactly one of canary"),
        ({"name": "p", "waves": [{**ALL, "shadow": {}}]}, "waves[0].shadow", "no `shadow`"),
        (
            {"name": "p", "waves": [{"count": 1}, {"count": 9, "shadow": {}}, ALL]},
            "waves[1].shadow",
            "before all waves that switch",
        ),
        (
            {"name": "p", "waves": [_shadow("10%"), _shadow("5%"), ALL]},
            "waves[1].percent",
            "more than the 10 of the wave before",
        ),
    ],
)
def test_mistake_is_named_by_its_path(data: Any, path: str, message: str) -> None:
    assert message in faults(data)[path]


@pytest.mark.parametrize(
    "cron", ["", "2", "* * * *", "60 * * * *", "0 2 30 2 *", "0 2 * * 1#2/2", "0 2 L * *", "@daily"]
)
def test_cron_that_is_none_or_never_comes_is_refused(cron: str) -> None:
    window = {"cron": cron, "duration": "1h"}
    assert "windows[0].cron" in faults({**FULL, "windows": [window]})


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../etc/passwd", "/etc/localtime", "Europe"])
def test_unknown_zone_is_refused(zone: str) -> None:
    window = {"cron": "0 2 * * *", "duration": "1h", "timezone": zone}
    assert "windows[0].timezone" in faults({**FULL, "windows": [window]})


def test_all_mistakes_are_told_at_once_but_not_without_end() -> None:
    assert len(faults({"name": "p", "waves": [{"count": 0, "soak": "x"}]})) == 3
    many = {f"key{n}": 1 for n in range(500)}
    assert len(faults({**FULL, **many})) == 20


@given(st.integers(0, 40 * 86_400))
def test_lengths_of_time_are_written_as_they_are_read(seconds: int) -> None:
    policy = parse_policy({"name": "p", "waves": [{**ALL, "soak": span(seconds)}]})
    assert policy.waves[0].soak_s == seconds


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("name", "waves", "canary", "count", "percent", "gates", "metric", "selector"),
                    *("pace", "windows", "cron", "duration", "timezone", "conditions", "soak_s"),
                    *("shadow", "share", "min_calls", "errors", "latency", "at_most"),
                    *("ramp_factor", "devices", "slice_by", "statistic", "deadlines", "alpha"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_anything_is_a_policy_or_refused(data: Any) -> None:
    try:
        found = parse_policy(data)
    except PolicyInvalid:
        return
    assert isinstance(found, Policy)


@pytest.mark.parametrize("path", ["/api/v1/rollouts", "/api/v1/rollouts/preview"])
def test_rollout_with_a_bad_document_is_refused_with_paths(fleet: Fleet, path: str) -> None:
    fleet.group("cams", "line=a")
    document = with_wave(percent="10%", gates=[{"max_failure": 2}])
    body = {"group": "cams", "model": "detector", "version": "1.1.0"}
    answer = fleet.operator.post(path, json={**body, "document": {}})
    assert code_of(answer) == (422, "policy_invalid")
    answer = fleet.operator.post(path, json={**body, "document": document})
    assert code_of(answer) == (422, "policy_invalid")
    assert answer.json()["errors"] == [
        {
            "path": "waves[0].gates[0].max_failure",
            "line": None,
            "message": "unknown key; did you mean `max_failure_rate`?",
        }
    ]

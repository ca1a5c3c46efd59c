"""`pilotwave simulate` against a real server: what its devices say and believe is real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotwave_cli.errors import CliError
from pilotwave_cli.simulate.believing import Trust
from pilotwave_cli.simulate.fleet import Queued
from pilotwave_cli.simulate.profile import FACTS, read_profile
from pilotwave_protocol.antirollback import AntiRollback
from pilotwave_protocol.errors import RefusedError
from pilotwave_protocol.states import Reason
from pilotwave_protocol.verify_directive import VerifiedDirective
from tests.cli.conftest import DIGITS, REPO
from tests.cli.operator import Operator
from tests.server.device_api.peer import SimulatedDevice

PROFILE = """\
poll: 1
check_in: 2
selftest: 0.1
probation: 0.1
slices:
  - {name: good, share: 3, latency_ms: 0, mbit_s: 1000}
  - {name: bad, share: 1, latency_ms: 0, labels: {hw: nano}}
behaviours:
  - {slice: bad, version: 1.0.0, selftest_failure: 100%}
"""


@pytest.fixture
def assigned(pw: Operator, model: str, name: str) -> str:
    """A version of a model of its own, assigned to the simulated devices called like this."""
    pw(
        *("publish", model, "1.0.0", "--variant", f"onnx-fp32={DIGITS / '1.0.0'}"),
        *("--key", pw.keys / "publisher.pem"),
    )
    pw("groups", "create", name, "--selector", f"simulated={name}")
    pw("assign", "--yes", model, "1.0.0", "--group", name)
    return name


@pytest.mark.timeout(300)
def test_devices_enrol_verify_change_fail_by_profile_report_and_leave(
    pw: Operator, model: str, assigned: str, tmp_path: Path
) -> None:
    (tmp_path / "profile.yaml").write_text(PROFILE)
    account = pw.json(
        *("simulate", "--devices", "8", "--profile", tmp_path / "profile.yaml"),
        *("--prefix", assigned, "--for", "25s", "--root", pw.keys / "root.json", "--seed", "7"),
    )
    assert account["devices"] == 8
    counts = account["counts"]
    assert (counts["healthy"], counts["failed"]) == (6, 2)
    assert account["runs"] == {f"{model} 1.0.0": 6, f"{model} -": 2}
    assert counts["check_in_200"] > 8
    assert not [key for key in counts if key.startswith("refused")]
    events = pw.json("devices", "events", f"{assigned}-000007")
    assert ("failed", "selftest_mismatch") in {(e["kind"], e["reason"]) for e in events}
    shown = pw.json("devices", "show", f"{assigned}-000000")
    assert shown["state"] == "decommissioned"
    assert shown["labels"] == {"simulated": assigned}


AGENTS = """\
poll: 1
check_in: 2
selftest: 0.1
probation: 0.1
slices:
  - {name: good, share: 3, latency_ms: 0, mbit_s: 1000}
  - {name: bad, share: 1, latency_ms: 0}
behaviours:
  - {slice: bad, model: pilotwave-agent, probation_failure: 100%}
"""


@pytest.mark.timeout(300)
def test_devices_take_a_version_of_the_agent_and_report_as_it(
    pw: Operator, name: str, tmp_path: Path
) -> None:
    pin = f"pilotwave==0.2.0 --hash=sha256:{'a' * 64}\n"
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "requirements.txt").write_text(pin)
    (tmp_path / "profile.yaml").write_text(AGENTS)
    key = pw.keys / "publisher.pem"
    pw("models", "create", "pilotwave-agent", "--publisher", key, "--yes")
    variant = ("--variant", f"any={tmp_path / 'agent'}", "--unsafe-format")
    pw("publish", "pilotwave-agent", "0.2.0", *variant, "--key", key)
    pw("groups", "create", name, "--selector", f"simulated={name}")
    pw("assign", "--yes", "pilotwave-agent", "0.2.0", "--group", name)
    account = pw.json(
        *("simulate", "--devices", "8", "--profile", tmp_path / "profile.yaml", "--prefix", name),
        *("--for", "20s", "--root", pw.keys / "root.json", "--seed", "7", "--keep"),
    )
    assert account["runs"] == {"pilotwave-agent 0.2.0": 6, "pilotwave-agent -": 2}
    agents = [pw.json("devices", "show", f"{name}-{n:06}")["agent"] for n in range(8)]
    assert sorted(agents) == ["0.2.0"] * 6 + ["simulated"] * 2


@pytest.mark.timeout(300)
def test_a_directive_that_is_forged_or_of_another_device_is_refused(
    pw: Operator, assigned: str
) -> None:
    code = pw.json("codes", "create", "--label", f"simulated={assigned}")
    code = (code["items"] if isinstance(code, dict) else code)[0]["code"]
    with httpx.Client(base_url=pw.url, timeout=30) as http:
        peer = SimulatedDevice(f"{assigned}-peer", http)
        assert peer.enrol(code).status_code == 201
        assert peer.check_in().status_code == 200
        raw = peer.poll().content
    root = (pw.keys / "root.json").read_bytes()
    forged = json.loads(raw)
    forged["signatures"][0]["sig"] = forged["signatures"][0]["sig"][::-1].replace("=", "A")

    async def judge(envelope: bytes, device: str, memory: AntiRollback) -> VerifiedDirective:
        async with httpx.AsyncClient(base_url=pw.url, timeout=30) as http:
            trust = Trust(pw.url, root, http)
            try:
                return await trust.judge(
                    *(envelope,),
                    hint="",
                    fleet="test-fleet",
                    device=device,
                    facts=FACTS,
                    now=datetime.now(timezone.utc),
                    memory=memory,
                    token=peer.token,
                )
            finally:
                trust.close()

    def refusal(envelope: bytes, device: str, memory: AntiRollback) -> Reason:
        with pytest.raises(RefusedError) as caught:
            asyncio.run(judge(envelope, device, memory))
        return caught.value.reason

    nothing = AntiRollback()
    accepted = asyncio.run(judge(raw, peer.name, nothing))
    assert [e.version for e in accepted.directive.entries] == ["1.0.0"]
    (key,) = accepted.memory.ordered
    seq, digest = accepted.directive.seq, accepted.directive.set_digest
    assert accepted.memory == nothing.accepted(key, seq, digest)
    assert refusal(json.dumps(forged).encode(), peer.name, nothing) == Reason.WRONG_KEY
    assert refusal(raw, "another", nothing) == Reason.WRONG_DEVICE
    later, forked = nothing.accepted(key, seq + 1, digest), nothing.accepted(key, seq, "x")
    assert refusal(raw, peer.name, later) == Reason.DIRECTIVE_REPLAYED
    assert refusal(raw, peer.name, forked) == Reason.DIRECTIVE_FORK


BAD_PROFILES = [
    ("slices: 5", "slices: expected a list"),
    ("slices: [{share: -1}]", "share: expected a number from 0"),
    ("slices: [{share: 1, wheels: 4}]", "wheels: there is no such field"),
    ("slices: [{labels: {Bad Key: x}}]", "label"),
    ("slices: [{mbit_s: fast}]", "mbit_s: expected a number"),
    ("behaviours: [{silent: 120%}]", "silent: expected a number from 0 to 1"),
    ("poll: soon", "poll: expected a length of time"),
    ("poll: 1h 5m", "poll: expected a length of time"),
    ("poll: true", "poll: expected a length of time"),
    ("slices: [{offline: {share: no}}]", r"slices\[0\]\.offline\.share: expected a number"),
    ("slices: [5]", r"slices\[0\]: expected an object"),
    ("speed: 2", "speed: there is no such field"),
    ("- a", "expected a mapping"),
    ("a: [", "expected YAML"),
    ("slices: [{share: 0}]", "shares above 0"),
]


@pytest.mark.parametrize(("text", "words"), BAD_PROFILES)
def test_a_bad_profile_is_refused_with_its_field(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(text)
    with pytest.raises(CliError, match=words):
        read_profile(path)


@pytest.mark.parametrize("path", sorted((REPO / "examples/simulator").glob("*.yaml")), ids=str)
def test_the_example_profiles_are_good(path: Path) -> None:
    profile = read_profile(path)
    assert [profile.slice_of(n, 10).name for n in range(10)]


def test_lengths_of_time_of_a_profile_may_be_joined_or_plain_seconds(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("poll: 1h5m\ncheck_in: 2.5\nselftest: 0s\nslices: [{offline: {for: 90s}}]")
    profile = read_profile(path)
    assert (profile.poll_s, profile.check_in_s, profile.selftest_s) == (3900.0, 2.5, 0.0)
    assert profile.slices[0].offline.for_s == 90.0


def test_slices_are_filled_by_their_shares(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text("slices: [{name: a, share: 70%}, {name: b, share: 30%}]")
    profile = read_profile(path)
    found = [profile.slice_of(n, 1000).name for n in range(1000)]
    assert (found.count("a"), found.count("b")) == (700, 300)


def test_a_server_without_a_root_of_trust_is_named(fresh: Callable[..., Operator]) -> None:
    line = fresh().run("simulate", "--devices", "1", "--for", "1s").stderr
    assert "no root of trust yet" in line


def test_requests_wait_for_a_place_before_the_pool_not_in_it() -> None:
    there = most = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal there, most
        there += 1
        most = max(most, there)
        await asyncio.sleep(0.001)
        there -= 1
        return httpx.Response(200)

    async def ask() -> list[httpx.Response]:
        transport = httpx.MockTransport(answer)
        async with Queued(3, base_url="http://server", transport=transport) as http:
            return list(await asyncio.gather(*(http.get("/") for _ in range(50))))

    assert len(asyncio.run(ask())) == 50
    assert most == 3


CLASSES = """\
poll: 1
check_in: 1
selftest: 0.1
probation: 0.1
slices:
  - {name: new, share: 5, latency_ms: 0, mbit_s: 1000, facts: {cpu.model: new, cpu.vnni: true}}
  - {name: old, share: 4, latency_ms: 0, mbit_s: 1000, facts: {cpu.model: old}}
  - {name: lone, share: 1, latency_ms: 0, mbit_s: 1000, facts: {cpu.model: lone}}
measures:
  - {slice: old, variant: onnx-int8, failed: selftest_mismatch}
  - {variant: onnx-int8, p05_ms: 2.9}
  - {variant: onnx-poor, p05_ms: 0.1}
  - {variant: onnx-fp32, p05_ms: 4.9}
"""
CHOOSING = """\
name: choosing
waves: [{percent: 100%}]
choose: {minimise: latency, subject: {top1: ">=0.9"}}
"""


@pytest.mark.timeout(300)
def test_each_class_gets_the_variant_that_three_of_it_measured_to_be_best(
    pw: Operator, model: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "profile.yaml").write_text(CLASSES)
    (tmp_path / "policy.yaml").write_text(CHOOSING)
    builds = [("onnx-fp32", "1.0.0"), ("onnx-int8", "1.0.0"), ("onnx-poor", "1.0.0")]
    variants = [w for v, of in builds for w in ("--variant", f"{v}={DIGITS / of}")]
    signed = [
        word
        for v, top1 in (("onnx-fp32", "0.96"), ("onnx-int8", "0.955"), ("onnx-poor", "0.8"))
        for word in ("--metric", f"{v}.top1={top1}")
    ]
    pw("publish", model, "1.0.0", *variants, *signed, "--key", pw.keys / "publisher.pem")
    pw("groups", "create", name, "--selector", f"simulated={name}")
    pw(
        *("rollouts", "create", model, "1.0.0", "--group", name, "--allow-empty", "--start"),
        *("--policy-file", tmp_path / "policy.yaml"),
    )
    account = pw.json(
        *("simulate", "--devices", "10", "--profile", tmp_path / "profile.yaml"),
        *("--prefix", name, "--for", "40s", "--root", pw.keys / "root.json", "--seed", "7"),
        "--keep",
    )
    assert account["runs"] == {f"{model} 1.0.0": 10}
    assert account["counts"]["compared"] == 3 + 3 + 1
    told = [pw.json("devices", "why", f"{name}-{n:06}", "--model", model) for n in range(10)]
    assert [one["variant"] for one in told] == 5 * ["onnx-int8"] + 4 * ["onnx-fp32"] + ["onnx-int8"]
    assert "(median of 3 devices of this class), 4" in told[0]["sentence"]
    assert "% less than onnx-fp32" in told[0]["sentence"]
    assert "no other variant was measured" in told[5]["sentence"]
    assert "(measured on this device)" in told[9]["sentence"]
    runs = [pw.json("devices", "show", f"{name}-{n:06}")["models"][0] for n in range(10)]
    assert [one["current_variant"] for one in runs] == [one["variant"] for one in told]


SHADOWS = """\
poll: 1
check_in: 2
selftest: 0.1
probation: 0.1
slices:
  - {name: new, share: 3, latency_ms: 0, mbit_s: 1000, metrics: {calls_per_s: 100}}
  - {name: old, share: 1, latency_ms: 0, mbit_s: 1000, facts: {shadows: false}}
behaviours:
  - {version: 1.1.0, disagreement: 30%}
"""
TRIED_FIRST = """\
name: tried-first
waves:
  - name: tried
    count: 8
    shadow: {share: 100%, cpu: 50%, min_calls: 200}
    min_sample: 6
    gates: [{name: install}, {disagreement: {at_most: 2%}}, {latency: {min_effect: 10%}}]
  - {percent: 100%, gates: [{name: install}]}
"""


def roll_out(pw: Operator, model: str, version: str, group: str, policy: Path) -> dict[str, Any]:
    """Roll it out and return the rollout once it is over."""
    told = ("rollouts", "create", model, version, "--group", group, "--policy-file", policy)
    rollout = pw.json(*told, "--start")["id"]
    deadline = time.monotonic() + 200
    while True:
        found: dict[str, Any] = pw.json("rollouts", "show", rollout)
        if found["state"] not in ("running", "rolling_back"):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(1)


@pytest.mark.timeout(500)
def test_what_is_worse_in_shadow_reaches_nobody_and_what_is_good_reaches_all(
    pw: Operator, model: str, assigned: str, tmp_path: Path
) -> None:
    for version, folder in (("1.1.0", "1.1.0"), ("1.2.0", "1.3.0")):
        files = ("--variant", f"onnx-fp32={DIGITS / folder}")
        pw("publish", model, version, *files, "--key", pw.keys / "publisher.pem")
    profile, policy = tmp_path / "profile.yaml", tmp_path / "policy.yaml"
    profile.write_text(SHADOWS)
    policy.write_text(TRIED_FIRST)
    told = ("simulate", "--devices", "8", "--profile", profile, "--prefix", assigned, "--keep")
    out = tmp_path / "account.json"
    simulated = pw.start(*told, "--root", pw.keys / "root.json", "--json", out=out)
    while len(_running(pw, assigned, model, "1.0.0")) < 8:
        time.sleep(1)
    worse = roll_out(pw, model, "1.1.0", assigned, policy)
    good = roll_out(pw, model, "1.2.0", assigned, policy)
    os.kill(simulated.pid, signal.SIGINT)
    assert simulated.end(seconds=60) == 0
    account = json.loads(out.read_text())
    assert worse["state"] == "rolled_back"
    assert worse["reason"].startswith("rolled back: disagreement: the answers differ in ")
    assert "No user has met the version" in worse["reason"]
    assert good["state"] == "completed", good
    assert account["runs"] == {f"{model} 1.2.0": 8}
    assert account["counts"]["in_shadow"] == 12
    for number in range(8):
        events = pw.json("devices", "events", f"{assigned}-{number:06}")
        seen = {(e["kind"], e["version"]) for e in events}
        assert ("switched", "1.1.0") not in seen
        assert (("shadowing", "1.1.0") in seen) == (number < 6)


def _running(pw: Operator, group: str, model: str, version: str) -> list[str]:
    named = ("--group", group, "--model", model, "--version", version)
    found = pw.json("devices", "list", *named)
    return [device["name"] for device in found]

"""The demo's crowd: simulated devices beside the real ones, for a page worth looking at.

They speak the whole protocol over real HTTP (`docs/simulator.md`); what they run follows a profile.
One rollout to them is left on its way, and one waits for a second person.
"""

from __future__ import annotations

from demo.account import Account
from demo.stage import Stage

DEVICES = 48
PROFILE = """\
description: Two kinds of boards at three sites, some on poor links.
poll: 5s
check_in: 10s
selftest: 1s
probation: 8s
slices:
  - {name: orin, share: 45%, labels: {site: berlin, hw: orin}, facts: {memory_mb: 8192},
     metrics: {latency_ms: 11, spread: 0.25, error: 0.1%, score: 0.93, calls_per_s: 8}}
  - {name: pi, share: 35%, labels: {site: hamburg, hw: pi5}, facts: {memory_mb: 4096},
     metrics: {latency_ms: 34, spread: 0.3, error: 0.3%, score: 0.91, calls_per_s: 4}}
  - {name: nano, share: 20%, labels: {site: leipzig, hw: nano}, facts: {memory_mb: 2048},
     mbit_s: 4, latency_ms: 150, offline: {share: 30%, for: 4m, every: 6m},
     metrics: {latency_ms: 52, spread: 0.4, error: 0.8%, score: 0.9, calls_per_s: 2}}
behaviours:
  - {version: 1.1.0, slice: nano, selftest_failure: 40%, latency_factor: 0.9}
  - {version: 1.1.0, latency_factor: 0.9}
"""
POLICY = """\
name: field-in-three
description: A few, then four in ten for an hour, then all; stopped where many fail or get slower.
waves:
  - {name: few, percent: 15%, min_sample: 3, soak: 5s, gates: [{max_failure_rate: 20%}]}
  - name: four in ten
    percent: 40%
    min_sample: 8
    soak: 1h
    gates:
      - {name: install, max_failure_rate: 20%}
      - {name: latency, metric: latency_ms, statistic: p95, worse: higher, min_effect: 15%}
  - {name: all, percent: 100%, gates: [{max_failure_rate: 10%}]}
on_failure: rollback
"""
ASKING = """\
name: four-eyes
description: One night at half of the site, then all of it; a second person has to agree.
waves:
  - {percent: 50%, soak: 8h, gates: [{max_failure_rate: 5%}]}
  - {percent: 100%, gates: [{max_failure_rate: 5%}]}
approval: true
"""


def gather(stage: Stage, account: Account, model: str) -> None:
    """Let the crowd join, run 1.0.0, and start on its way to 1.1.0."""
    account.chapter(f"{DEVICES} simulated devices join, so that there is something to look at")
    for name, text in (("crowd", PROFILE), ("field", POLICY), ("asking", ASKING)):
        (stage.root / f"{name}.yaml").write_text(text)
    stage.pilotwave("groups", "create", "field", "--selector", "simulated=sim")
    stage.pilotwave("groups", "create", "berlin", "--selector", "site=berlin")
    stage.pilotwave("policies", "save", "field-in-three", "field.yaml")
    stage.pilotwave("policies", "save", "four-eyes", "asking.yaml")
    stage.pilotwave("assign", "--yes", model, "1.0.0", "--group", "field")
    words = ("--devices", str(DEVICES), "--prefix", "sim", "--profile", "crowd.yaml")
    stage.start("crowd", "pilotwave", "simulate", *words, "--seed", "7", "--root", "keys/root.json")
    account.wait(
        "most of them run 1.0.0",
        lambda: _healthy(stage, "1.0.0") >= DEVICES * 0.75 or None,
    )
    wish = ("rollouts", "create", model, "1.1.0", "--policy")
    made = stage.ask(*wish, "field-in-three", "--group", "field", "--start")
    account.say(f"rollout {made['id']} brings them 1.1.0, in three waves")
    account.wait("its second wave opens", lambda: _wave(stage, made["id"]) >= 1 or None)
    words = ("--description", "the same for the site in Berlin, over night")
    asked = stage.ask(*wish, "four-eyes", "--group", "berlin", *words, "--start")
    account.say(f"rollout {asked['id']} is {asked['state'].replace('_', ' ')}")


def _healthy(stage: Stage, version: str) -> int:
    devices = stage.ask("devices", "list", "--selector", "simulated=sim")
    return sum(
        model["state"] == "healthy" and model["current_version"] == version
        for device in devices
        for model in device["models"]
    )


def _wave(stage: Stage, rollout: str) -> int:
    return int(stage.ask("rollouts", "show", rollout)["wave"])

"""A fleet learns and all of it gets better: labels in use, a round in which one device lies and
another dies, a version signed at the desk, tried in shadow, and rolled out under gates."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.digits_in_use import Application, factory_model, in_field, own_mix
from tests.e2e.fleet_of_one import wait_until
from tests.e2e.learning import KEY, LearningFleet, holding, learning_fleet
from tests.peers.relay import Relay, honest

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
HONEST = ("cam-1", "cam-2", "cam-3", "cam-4")
LIAR, DIES = "liar", "dies"
SENDING = (*HONEST, LIAR)
DEVICES = (*SENDING, DIES)
FIRST, BETTER = "1.0.0", "1.1.0"
LABELLED = 160
ANSWERS = 120
PLAN = ("--base", FIRST, "--variant", "onnx-fp32", "--file", "model.onnx")
POLICY = """
name: shadow-first
waves:
  - name: tried
    percent: 100%
    shadow: {share: 100%, cpu: 50%, min_calls: 30}
    min_sample: 5
    gates:
      - {disagreement: {at_most: 95%}, min_devices: 5}
      - {errors: {at_most: 5%}, min_devices: 5}
  - {name: first, canary: {devices: [cam-1]}, gates: [{max_failure_rate: 5%}]}
  - {name: everyone, percent: 100%, gates: [{max_failure_rate: 5%}]}
"""


class PowerCut:
    """Stands between one device and the server; ends its agent as the numbers of its update are on
    their way, of which the server has the statement alone."""

    def __init__(self, fleet: LearningFleet, relay: Relay) -> None:
        self.fleet, self.relay = fleet, relay
        self.sent = 0
        self.struck = threading.Event()
        relay.forged = self._on_its_way

    def _on_its_way(self, path: str, device: str) -> bytes | None:
        if path not in ("/device/v1/updates", "/device/v1/updates/pieces"):
            return honest(path, device)
        self.sent += 1
        if self.struck.is_set():
            return None
        self.fleet.kill(DIES)
        self.struck.set()
        return b""  # to nobody


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LearningFleet]:
    with learning_fleet(tmp_path, SENDING) as made:
        yield made


@pytest.fixture
def cut(fleet: LearningFleet) -> Iterator[PowerCut]:
    """The last device, which is behind it."""
    with closing(Relay(fleet.stage.url)) as relay:
        found = PowerCut(fleet, relay)
        fleet.enrol(DIES, relay.url)
        yield found


@pytest.fixture
def applications(fleet: LearningFleet, cut: PowerCut) -> Iterator[dict[str, Application]]:
    """One on each device, which runs the version of the factory."""
    (fleet.root / "model.onnx").write_bytes(factory_model())
    fleet.publish(FIRST, fleet.root / "model.onnx")
    fleet.assign(FIRST)
    made = {name: Application(fleet.root / name, n * 10**6) for n, name in enumerate(DEVICES)}
    with ExitStack() as stack:
        for one in made.values():
            stack.callback(one.close)
            one.start()
        yield made


def met(device: str) -> tuple[np.ndarray, np.ndarray]:
    """What a device meets, and what it is told that it is."""
    number = DEVICES.index(device)
    x, classes = in_field("labelled", LABELLED, 100 + number, own_mix(number))
    return x, 9 - classes if device == LIAR else classes


def accuracy(applications: dict[str, Application], version: str) -> dict[str, float]:
    """Wait until a version has answered enough on each device; return the share of right ones."""
    counts = lambda: {d: one.answers[version] for d, one in applications.items()}  # noqa: E731
    wait_until(lambda: min(counts().values()) >= ANSWERS, lambda: f"{version}: {counts()}")
    return {device: one.accuracy(version) for device, one in applications.items()}


def learn(fleet: LearningFleet, cut: PowerCut) -> None:
    """From the plan to the round's end."""
    stage = fleet.stage
    for name, part, rows in (("own.npz", "own", 600), ("unseen.npz", "unseen", 400)):
        x, labels = in_field(part, rows, rows)
        np.savez(fleet.root / name, x=x, labels=labels)
    asked = ("--embedding", "active", "--evaluate", "own.npz", "--least-devices", "5")
    stage.pilotwave("learn", "plan", "detector", "autumn-1", *PLAN, *asked, *KEY)
    stage.pilotwave("learn", "start", "detector", "autumn-1", "--group", "boards")
    came = lambda: {u["device"] for u in fleet.status()["updates"]}  # noqa: E731
    wait_until(lambda: came() == set(SENDING) and cut.struck.is_set(), lambda: f"{came()}")
    said = stage.pilotwave("learn", "end", "detector", "autumn-1", "--yes")
    assert "5 devices, 1 left out" in said
    found = fleet.status()
    assert [u["device"] for u in found["updates"] if u["gain"] is not None] == [LIAR]
    assert found["round"]["right"] > found["round"]["right_with_all"] + 0.02


def start_rollout(fleet: LearningFleet) -> str:
    words = ("--file", "model.onnx", "--evaluate", "unseen.npz", "--out", "learnt.onnx")
    told = fleet.stage.ask("learn", "fetch", "detector", "autumn-1", *words, "--max-loss", "12%")
    assert told["right_before"] < 0.5
    assert told["right_after"] > 0.75
    fleet.publish(BETTER, fleet.root / "learnt.onnx")
    (fleet.root / "policy.yaml").write_text(POLICY)
    by = ("--group", "boards", "--policy-file", "policy.yaml", "--start")
    return str(fleet.stage.ask("rollouts", "create", "detector", BETTER, *by)["id"])


def opened(fleet: LearningFleet, rollout: str, wave: int) -> bool:
    found = fleet.stage.ask("rollouts", "decisions", rollout)
    return any((d["action"], d["wave"]) == ("open_wave", wave) for d in found)


def moments(fleet: LearningFleet, device: str, kind: str) -> list[str]:
    """When a device did something with the better version."""
    found: list[dict[str, Any]] = fleet.stage.ask("devices", "events", device)
    return [e["at"] for e in found if (e["kind"], e["version"]) == (kind, BETTER)]


def test_all_devices_get_better_though_one_lies_and_one_dies(
    fleet: LearningFleet, cut: PowerCut, applications: dict[str, Application]
) -> None:
    before = accuracy(applications, FIRST)
    assert max(before.values()) < 0.5, before
    for device, one in applications.items():
        one.label(*met(device))
    learn(fleet, cut)
    for device, one in applications.items():
        assert len(one.embeddings) == LABELLED
        assert holding(fleet.root / device, met(device)[0])
        assert not holding(fleet.root / "data", met(device)[0], np.array(one.embeddings)), device

    rollout = start_rollout(fleet)
    wait_until(lambda: opened(fleet, rollout, 1), lambda: f"{rollout} ends its shadow wave")
    fleet.start(DIES)  # it missed the end of the round and the wave in shadow
    state = lambda: fleet.stage.ask("rollouts", "show", rollout)  # noqa: E731
    wait_until(lambda: state()["state"] == "completed", lambda: str(state()))
    tried = [moments(fleet, device, "shadowing") for device in SENDING]
    switched = [moments(fleet, device, "switched") for device in DEVICES]
    assert all(tried), tried
    assert all(len(times) == 1 for times in switched), switched
    assert max(times[0] for times in tried) < min(times[0] for times in switched)

    after = accuracy(applications, BETTER)
    assert min(after.values()) > 0.7, after
    assert np.mean(list(after.values())) > 0.75, after
    assert not [error for one in applications.values() for error in one.errors]
    # whoever died sent nothing more: the round that it answered is over
    assert cut.sent == 1
    assert {u["device"] for u in fleet.status()["updates"]} == set(SENDING)

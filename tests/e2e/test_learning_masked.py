"""Six real devices mask what they send. One is gone after its keys, one after its masked numbers;
the sum of the others comes out, and nowhere on the server lie the sums of one device alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent.live import LiveModel
from pilotwave_protocol.learning.statistics import Statistics, with_ones
from tests.e2e.fleet_of_one import wait_until
from tests.e2e.learning import KEY, LearningFleet, holding, learning_fleet
from tests.peers.relay import Relay, honest
from tests.protocol.learning.models import classifier

pytestmark = [pytest.mark.timeout(900), pytest.mark.long]
FEATURES, CLASSES = 8, 3
STAY = ("cam-1", "cam-2", "cam-3", "cam-4")
AFTER_KEYS, AFTER_NUMBERS = "keys-only", "numbers-only"
DEVICES = (*STAY, AFTER_KEYS, AFTER_NUMBERS)
INPUTS = 3
"""Keys, shares and masked numbers are what the one device sends before it is gone."""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LearningFleet]:
    with learning_fleet(tmp_path, (*STAY, AFTER_KEYS)) as made:
        yield made


@pytest.fixture
def relay(fleet: LearningFleet) -> Iterator[Relay]:
    """Between the server and the device that it ends once its masked numbers have arrived."""
    with closing(Relay(fleet.stage.url)) as made:
        sent = 0

        def strike(path: str, device: str) -> bytes | None:
            nonlocal sent
            sent += path == "/device/v1/masked"
            if path.startswith("/device/v1/masked/") and sent == INPUTS:
                fleet.kill(AFTER_NUMBERS)
                return b""  # to nobody
            return honest(path, device)

        made.forged = strike
        fleet.enrol(AFTER_NUMBERS, made.url)
        yield made


def seen(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers, so that sums are the same to the last bit however they are added up."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, CLASSES, rows)
    x = random.integers(0, 3, (rows, FEATURES)) + 5 * np.eye(FEATURES)[classes]
    return x.astype(np.float32), classes


def factory_model() -> bytes:
    """Its embedding is its input."""
    head = np.random.default_rng(3).normal(size=(FEATURES + 1, CLASSES))
    return classifier((np.eye(FEATURES), np.zeros(FEATURES)), head)


def label_in_use(fleet: LearningFleet, device: str) -> Statistics:
    """Return the true sums of what the device has labelled."""
    x, y = seen(60, DEVICES.index(device))
    with LiveModel("detector", data=fleet.root / device, app="use", wait_s=60) as model:
        for row, c in zip(x, y, strict=True):
            assert model.label(model.run({"x": row[None]}), int(c))
    rows = with_ones(x.astype(np.float64))
    return Statistics(rows.T @ rows, rows.T @ np.eye(CLASSES)[y])


def masked(fleet: LearningFleet) -> dict[str, Any]:
    found: dict[str, Any] = fleet.status()["masked"]
    return found


def start_of(sums: Statistics) -> np.ndarray:
    """The first 16 numbers as they lie in memory, which no other sums have."""
    return np.frombuffer(sums.to_bytes()[:64], "<f4")[None]


def test_a_fleet_learns_and_no_device_is_seen(fleet: LearningFleet, relay: Relay) -> None:
    stage, root = fleet.stage, fleet.root
    (root / "model.onnx").write_bytes(factory_model())
    fleet.publish("1.0.0", root / "model.onnx")
    fleet.assign("1.0.0")
    for name, seed in (("own.npz", 50), ("unseen.npz", 60)):
        x, y = seen(300, seed)
        np.savez(root / name, x=x, labels=y)
    base = ("--base", "1.0.0", "--variant", "onnx-fp32", "--file", "model.onnx", "--clip", "100")
    asked = ("--embedding", "active", "--evaluate", "own.npz", "--least-devices", "4")
    by = ("--masked", "--group-size", "6", "--for", "10m")
    stage.pilotwave("learn", "plan", "detector", "autumn-1", *base, *asked, *by, *KEY)
    stage.pilotwave("learn", "start", "detector", "autumn-1", "--group", "boards")

    true = {AFTER_KEYS: label_in_use(fleet, AFTER_KEYS)}
    wait_until(lambda: masked(fleet)["waiting"] == [AFTER_KEYS], lambda: f"{masked(fleet)}")
    fleet.kill(AFTER_KEYS)
    true |= {name: label_in_use(fleet, name) for name in (*STAY, AFTER_NUMBERS)}

    def phase() -> list[str]:
        return [group["phase"] for group in masked(fleet)["groups"]]

    for _ in range(
        4
    ):  # the time of a phase, for the one that gives no shares, is over the patience
        with contextlib.suppress(AssertionError):
            wait_until(lambda: phase() in (["done"], ["lost"]), lambda: f"{masked(fleet)}")
            break
    (group,) = masked(fleet)["groups"]
    assert (group["phase"], group["devices"], group["examples"]) == ("done", 5, 300)
    sent = {member["device"]: member["sent"] for member in group["members"]}
    assert sent == {**dict.fromkeys(STAY, "answer"), AFTER_KEYS: "keys", AFTER_NUMBERS: "input"}

    total = Statistics.zero(FEATURES, CLASSES)
    for name in (*STAY, AFTER_NUMBERS):
        total = total + true[name]
    assert holding(root / "data", start_of(total))  # exact, and found where it lies
    for device in DEVICES:
        assert not holding(root / "data", start_of(true[device])), device
    said = stage.pilotwave("learn", "end", "detector", "autumn-1", "--yes")
    assert "5 devices" in said
    words = ("--file", "model.onnx", "--evaluate", "unseen.npz", "--out", "learnt.onnx")
    told = stage.ask("learn", "fetch", "detector", "autumn-1", *words)
    assert told["right_after"] > 0.95

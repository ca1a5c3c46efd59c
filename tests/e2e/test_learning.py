"""A fleet learns: labelled in use, one round, a version signed at the desk, better in the field.

Three devices are honest and one lies about its labels; real agents, server, application, command.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent.live import LiveModel
from pilotwave_protocol.learning.statistics import Statistics, with_ones
from tests.e2e.fleet_of_one import wait_until
from tests.e2e.learning import KEY, LearningFleet, holding, learning_fleet
from tests.protocol.learning.models import classifier

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
IN, FEATURES, CLASSES = 8, 24, 3
DEVICES = ("cam-1", "cam-2", "cam-3", "liar")
RANDOM = np.random.default_rng(5)
HIDDEN = RANDOM.normal(size=(IN, FEATURES)) / 2, RANDOM.normal(size=FEATURES) / 2


def seen(rows: int, seed: int, *, field: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and classes: at the factory class k looks like k, in the field like the next one."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, CLASSES, rows)
    looks = (classes + field) % CLASSES
    x = np.eye(IN)[looks] * 2 + random.normal(0, 0.4, (rows, IN))
    return x.astype(np.float32), classes


def factory_model() -> bytes:
    x, y = seen(400, 1, field=False)
    rows = with_ones(np.maximum(x @ HIDDEN[0] + HIDDEN[1], 0))
    head = Statistics(rows.T @ rows, rows.T @ np.eye(CLASSES)[y]).head(1.0)
    return classifier(HIDDEN, head * 5)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LearningFleet]:
    with learning_fleet(tmp_path, DEVICES) as made:
        yield made


def use(fleet: LearningFleet, device: str, x: np.ndarray) -> np.ndarray:
    """What the application there answers."""
    with LiveModel("detector", data=fleet.root / device, app="use", wait_s=60) as model:
        return np.array([model.run({"x": row[None]})["probs"].argmax() for row in x])


def met(device: str) -> tuple[np.ndarray, np.ndarray]:
    """What a device meets: inputs, and the classes that it is told, which a liar has wrong."""
    lies = device == "liar"
    x, y = seen(200 if lies else 60, 10 + DEVICES.index(device))
    return x, (y + lies) % CLASSES


def label_in_use(fleet: LearningFleet, device: str) -> np.ndarray:
    """Return the embeddings of what was labelled, as the model there gave them."""
    x, y = met(device)
    with LiveModel("detector", data=fleet.root / device, app="use", wait_s=60) as model:
        answers = [model.run({"x": row[None]}) for row in x]
        labelled = zip(answers, y, strict=True)
        assert all(model.label(answer, c, source="operator") for answer, c in labelled)
    return np.concatenate([answer["active"] for answer in answers])


def in_use(fleet: LearningFleet) -> None:
    """Have the devices run the factory's version."""
    (fleet.root / "model.onnx").write_bytes(factory_model())
    fleet.publish("1.0.0", fleet.root / "model.onnx")
    fleet.assign("1.0.0")
    for name, seed in (("own.npz", 50), ("unseen.npz", 60)):
        x, y = seen(300, seed)
        np.savez(fleet.root / name, x=x, labels=y)


def learn(fleet: LearningFleet, *method: str) -> None:
    """Have all four devices answer the first round of a plan."""
    base = ("--base", "1.0.0", "--variant", "onnx-fp32", "--file", "model.onnx")
    asked = ("--embedding", "active", "--evaluate", "own.npz", "--least-devices", "4")
    stage = fleet.stage
    stage.pilotwave("learn", "plan", "detector", "autumn-1", *base, *asked, *method, *KEY)
    stage.pilotwave("learn", "start", "detector", "autumn-1", "--group", "boards")
    wait_until(lambda: fleet.round()["devices"] == 4, lambda: f"updates: {fleet.status()}")


def fetch(fleet: LearningFleet) -> dict[str, Any]:
    words = ("--file", "model.onnx", "--evaluate", "unseen.npz", "--out", "learnt.onnx")
    told: dict[str, Any] = fleet.stage.ask("learn", "fetch", "detector", "autumn-1", *words)
    return told


def test_a_fleet_learns_and_a_liar_is_left_out(fleet: LearningFleet) -> None:
    stage, root = fleet.stage, fleet.root
    in_use(fleet)
    test_x, test_y = seen(300, 99)
    before = float((use(fleet, "cam-1", test_x) == test_y).mean())
    assert before < 0.2
    embeddings = {device: label_in_use(fleet, device) for device in DEVICES}
    learn(fleet, "--label-source", "operator")
    # no device sends a second one, nor the same one again
    sent = [u["received_at"] for u in fleet.status()["updates"]]
    time.sleep(5)
    assert [u["received_at"] for u in fleet.status()["updates"]] == sent

    asked_first = stage.run("pilotwave", "learn", "end", "detector", "autumn-1", check=False)
    assert "4 devices took part" in asked_first
    assert fleet.round()["state"] == "open"
    said = stage.pilotwave("learn", "end", "detector", "autumn-1", "--yes")
    assert "4 devices, 1 left out" in said
    found = fleet.status()
    assert [u["device"] for u in found["updates"] if u["gain"] is not None] == ["liar"]
    assert found["state"] == "completed"
    assert found["round"]["right"] > 0.95
    assert found["round"]["right"] > found["round"]["right_with_all"] + 0.02
    for device in DEVICES:
        inputs = met(device)[0]
        assert holding(root / device, inputs)
        assert not holding(root / "data", inputs, embeddings[device])

    told = fetch(fleet)
    assert told["right_before"] < 0.2
    assert told["right_after"] > 0.95
    fleet.publish("1.1.0", root / "learnt.onnx")
    fleet.assign("1.1.0")
    after = float((use(fleet, "cam-1", test_x) == test_y).mean())
    assert after > 0.95


def test_a_fleet_learns_in_three_rounds(fleet: LearningFleet) -> None:
    in_use(fleet)
    embeddings = {device: label_in_use(fleet, device) for device in DEVICES}
    learn(fleet, "--method", "sgd", "--rounds", "3", "--epochs", "20")
    said = fleet.stage.pilotwave("learn", "end", "detector", "autumn-1", "--yes")
    assert "round 1 of experiment 1 is done: 4 devices; round 2 is open" in said
    # the others end by themselves, once those that answered the first have answered them
    wait_until(lambda: fleet.status()["state"] == "completed", lambda: f"{fleet.status()}")
    found = fleet.status()
    assert [(r["number"], r["devices"]) for r in found["rounds"]] == [(3, 4), (2, 4), (1, 4)]
    best = next(r for r in found["rounds"] if r["number"] == found["result"])
    assert best["right"] > 0.9
    for device in DEVICES:
        assert not holding(fleet.root / "data", met(device)[0], embeddings[device])
    told = fetch(fleet)
    assert told["right_before"] < 0.2
    assert told["right_after"] > 0.9

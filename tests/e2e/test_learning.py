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
from tests.e2e.stage import ForkedStage
from tests.protocol.learning.models import classifier

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
IN, FEATURES, CLASSES = 8, 24, 3
DEVICES = ("cam-1", "cam-2", "cam-3", "liar")
SETTINGS = """
metered = false
probation_s = 1

[learn]
allow = true
idle = false
"""
QUICK = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "2"}
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
def stage(tmp_path: Path) -> Iterator[ForkedStage]:
    stage = ForkedStage(tmp_path, settings={**QUICK, "PILOTWAVE_LOG_LEVEL": "debug"})
    try:
        init = ("--data", "data", "--fleet", "field", "--token-file", "admin.token")
        stage.run("pilotwave-server", "init", *init)
        stage.start_server()
        stage.pilotwave("keys", "init", "--dir", "keys", "--plain")
        stage.pilotwave("models", "create", "detector", "--publisher", "keys/publisher.pem")
        stage.pilotwave("groups", "create", "boards", "--selector", "site=here")
        for name in DEVICES:
            made = stage.ask("codes", "create", "--label", "site=here")
            code = (made["items"] if isinstance(made, dict) else made)[0]["code"]
            who = ("--server", stage.url, "--name", name, "--code", code)
            root = ("--root", "keys/root.json", "--data", name)
            stage.run("pilotwave-agent", "enrol", *who, *root)
            config = tmp_path / name / "agent.toml"
            config.write_text(config.read_text() + SETTINGS)
            stage.start(name, "pilotwave-agent", "run", "--data", name)
        yield stage
    finally:
        stage.close()


def publish(stage: ForkedStage, version: str, file: Path) -> None:
    words = ("--variant", f"onnx-fp32={file}", "--key", "keys/publisher.pem", "--no-try")
    stage.pilotwave("publish", "detector", version, *words)
    stage.pilotwave("assign", "--yes", "detector", version, "--group", "boards")
    for name in DEVICES:
        _wait_for(stage, name, version)


def _wait_for(stage: ForkedStage, name: str, version: str) -> None:
    wait_until(lambda: runs(stage, name) == version, lambda: f"{name} {version}")


def runs(stage: ForkedStage, device: str) -> str:
    found = stage.ask("devices", "show", device)
    slot = next((m for m in found.get("models", []) if m["model"] == "detector"), {})
    return str(slot.get("current_version")) if slot.get("state") == "healthy" else ""


def use(stage: ForkedStage, device: str, x: np.ndarray) -> np.ndarray:
    """What the application there answers."""
    with LiveModel("detector", data=stage.root / device, app="use", wait_s=60) as model:
        return np.array([model.run({"x": row[None]})["probs"].argmax() for row in x])


def label_in_use(stage: ForkedStage, device: str, seed: int) -> None:
    x, y = seen(200 if device == "liar" else 60, seed)
    y = (y + 1) % CLASSES if device == "liar" else y
    with LiveModel("detector", data=stage.root / device, app="use", wait_s=60) as model:
        kept = [model.label(model.run({"x": row[None]}), c) for row, c in zip(x, y, strict=True)]
    assert all(kept)


def status(stage: ForkedStage) -> dict[str, Any]:
    found: dict[str, Any] = stage.ask("learn", "status", "detector", "autumn-1")
    return found


def test_a_fleet_learns_and_a_liar_is_left_out(stage: ForkedStage) -> None:
    root = stage.root
    (root / "model.onnx").write_bytes(factory_model())
    publish(stage, "1.0.0", root / "model.onnx")
    test_x, test_y = seen(300, 99)
    before = float((use(stage, "cam-1", test_x) == test_y).mean())
    assert before < 0.2
    for seed, device in enumerate(DEVICES):
        label_in_use(stage, device, 10 + seed)
    for name, seed in (("own.npz", 50), ("unseen.npz", 60)):
        x, y = seen(300, seed)
        np.savez(root / name, x=x, labels=y)

    base = ("--base", "1.0.0", "--variant", "onnx-fp32", "--file", "model.onnx")
    asked = ("--embedding", "active", "--evaluate", "own.npz", "--least-devices", "4")
    key = ("--key", "keys/publisher.pem")
    stage.pilotwave("learn", "plan", "detector", "autumn-1", *base, *asked, *key)
    stage.pilotwave("learn", "start", "detector", "autumn-1", "--group", "boards")
    wait_until(lambda: status(stage)["round"]["devices"] == 4, lambda: f"updates: {status(stage)}")
    # no device sends a second one, nor the same one again
    sent = [u["received_at"] for u in status(stage)["updates"]]
    time.sleep(5)
    assert [u["received_at"] for u in status(stage)["updates"]] == sent

    asked_first = stage.run("pilotwave", "learn", "end", "detector", "autumn-1", check=False)
    assert "4 devices took part" in asked_first
    assert status(stage)["round"]["state"] == "open"
    said = stage.pilotwave("learn", "end", "detector", "autumn-1", "--yes")
    assert "4 devices, 1 left out" in said
    found = status(stage)
    assert [u["device"] for u in found["updates"] if u["gain"] is not None] == ["liar"]
    assert found["state"] == "completed"
    assert found["round"]["right"] > 0.95
    assert found["round"]["right"] > found["round"]["right_with_all"] + 0.02
    _holds_no_example(root / "data")

    words = ("--file", "model.onnx", "--evaluate", "unseen.npz", "--out", "learnt.onnx")
    told = stage.ask("learn", "fetch", "detector", "autumn-1", *words)
    assert told["right_before"] < 0.2
    assert told["right_after"] > 0.95
    publish(stage, "1.1.0", root / "learnt.onnx")
    after = float((use(stage, "cam-1", test_x) == test_y).mean())
    assert after > 0.95


def _holds_no_example(folder: Path) -> None:
    """No file of the server holds an example's inputs or its embedding, as the device has them."""
    known = []
    for seed in range(len(DEVICES)):
        x, _ = seen(200, 10 + seed)
        rows = np.maximum(x.astype(np.float32) @ HIDDEN[0].astype(np.float32), 0)
        known += [row.tobytes() for row in (*x, *rows)]
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert not any(one in content for one in known), path

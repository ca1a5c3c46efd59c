"""A device adapts a version to itself while its server is away, and goes back to what is signed.

Real server, agent, application and commands. The server is stopped once the plan has come.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent.live import Answer, LiveModel
from tests.e2e.fleet_of_one import wait_until
from tests.e2e.learning import KEY, LearningFleet, holding, learning_fleet
from tests.protocol.learning.field import factory_model, golden_cases, seen

pytestmark = [pytest.mark.timeout(600), pytest.mark.long]
CAM = "cam-1"
TEST_X, TEST_Y = seen(300, 99)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LearningFleet]:
    with learning_fleet(tmp_path, ()) as made:
        made.enrol(CAM)
        made.kill(CAM)
        config = tmp_path / CAM / "agent.toml"
        config.write_text(
            config.read_text().replace("allow = true\n", "allow = true\nadapt = true\n")
        )
        made.start(CAM)
        yield made


def answers(fleet: LearningFleet, x: np.ndarray) -> list[Answer]:
    """What the application there answers."""
    with LiveModel("detector", data=fleet.root / CAM, app="use", wait_s=60) as model:
        return [model.run({"x": row[None]}) for row in x]


def right(found: list[Answer]) -> float:
    return float((np.array([a["probs"].argmax() for a in found]) == TEST_Y).mean())


def label(fleet: LearningFleet, rows: int, seed: int, *, wrong: bool = False) -> None:
    x, y = seen(rows, seed)
    with LiveModel("detector", data=fleet.root / CAM, app="use", wait_s=60) as model:
        for row, c in zip(x, y * (not wrong), strict=True):
            assert model.label(model.run({"x": row[None]}), int(c))


def overlay(fleet: LearningFleet) -> dict[str, Any]:
    said = fleet.stage.run("pilotwave-agent", "status", "--data", CAM, "--json")
    found = json.loads(said)["overlays"]
    return dict(found[0]) if found else {"since": None, "detail": ""}


def in_use(fleet: LearningFleet) -> bool:
    return overlay(fleet)["since"] is not None


def stop_server(fleet: LearningFleet) -> str:
    """Stop it; return its port."""
    server = fleet.stage.processes[0]
    server.terminate()
    server.wait(60)
    return fleet.stage.url.rpartition(":")[2]


def test_a_device_adapts_alone_and_goes_back_to_what_is_signed(fleet: LearningFleet) -> None:
    stage, root = fleet.stage, fleet.root
    for name in ("first", "second"):
        (root / name).mkdir()
        (root / name / "model.onnx").write_bytes(factory_model())
        (root / name / "selftest.safetensors").write_bytes(golden_cases(40 + len(name)))
    fleet.publish("1.0.0", root / "first")
    fleet.assign("1.0.0")
    x, y = seen(300, 50, field=False)
    np.savez(root / "own.npz", x=x, labels=y)
    base = ("--base", "1.0.0", "--variant", "onnx-fp32", "--file", "first", "--for", "30d")
    asked = ("--embedding", "active", "--evaluate", "own.npz", "--scope", "device")
    bounds = ("--distance", "6", "--golden", "0.8")
    said = stage.pilotwave("learn", "plan", "detector", "here-1", *base, *asked, *bounds, *KEY)
    assert "nothing is sent" in said
    refused = stage.run(
        "pilotwave", "learn", "start", "detector", "here-1", "--group", "boards", check=False
    )
    assert "carry it out by themselves" in refused
    plans = root / CAM / "learning" / "plans"
    wait_until(lambda: plans.is_dir() and list(plans.iterdir()), lambda: "no plan came")

    # from here on the device is alone
    port = stop_server(fleet)
    before = answers(fleet, TEST_X)
    assert right(before) < 0.65
    assert {a.overlay for a in before} == {""}
    label(fleet, 90, 2)
    wait_until(lambda: in_use(fleet), lambda: f"adapted: {overlay(fleet)}")
    after = answers(fleet, TEST_X)
    assert right(after) > 0.95
    assert right([a.base for a in after]) == right(before)
    print(f"right before {right(before):.3f}, after {right(after):.3f}: {overlay(fleet)}")
    (file,) = (root / CAM / "models" / "detector" / "overlays").iterdir()
    kept = file.read_bytes()

    # labels that contradict it take it back
    label(fleet, 100, 3, wrong=True)
    wait_until(lambda: not in_use(fleet), lambda: f"taken back: {overlay(fleet)}")
    assert "later labels" in overlay(fleet)["detail"]
    assert right(answers(fleet, TEST_X)) == right(before)

    # it learns from new ones alone; the server comes back, and a new version ends it
    shutil.rmtree(root / CAM / "learning" / "examples")
    label(fleet, 150, 4)
    wait_until(lambda: in_use(fleet), lambda: f"adapted again: {overlay(fleet)}")
    stage.start("server", "pilotwave-server", "run", "--data", "data", "--port", port)
    shown = lambda: stage.ask("devices", "show", CAM)["facts"].get("overlays")  # noqa: E731
    wait_until(lambda: answering(stage) and shown() == "detector", lambda: "the fact says so")
    fleet.publish("1.1.0", root / "second")
    fleet.assign("1.1.0")
    wait_until(lambda: not in_use(fleet), lambda: f"gone: {overlay(fleet)}")
    assert {a.overlay for a in answers(fleet, TEST_X)} == {""}
    wait_until(lambda: shown() is None, lambda: f"the fact: {shown()}")
    # nothing of it is anywhere on the server
    numbers = np.frombuffer(kept.partition(b"\n")[2], "<f4").reshape(-1, 3)[:8].reshape(2, -1)
    assert not holding(root / "data", numbers)
    digest = file.name.removesuffix(".overlay").encode()
    assert not [p for p in (root / "data").rglob("*") if p.is_file() and digest in p.read_bytes()]
    assert not re.search(digest, (root / "server.log").read_bytes())


def answering(stage: Any) -> bool:
    said = stage.run("pilotwave", "devices", "list", "--json", check=False)
    return said.startswith(("[", "{"))

"""Captured cases from an application to the desk: a real device, server and command."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pilotwave_agent.live import LiveModel
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until
from tests.peers.shelf import model_bytes

pytestmark = pytest.mark.timeout(300)
SETTINGS = """
[capture]
reader = "{reader}"
reasons = ["low_score", "uniform"]
share = 0.0
"""
CASES = 12


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetOfOne]:
    from tests.e2e.stage import ForkedStage

    desk = ForkedStage(tmp_path)
    said = desk.run("pilotwave", "keys", "reader", "--out", "keys/reader.pem", "--plain")
    settings = SETTINGS.format(reader=said.split()[-1])
    quick = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "2"}
    with fleet_of_one(tmp_path, settings=settings, top="metered = false\n", server=quick) as found:
        yield found


def known_input(n: int) -> np.ndarray:
    """Four numbers whose bytes occur nowhere else."""
    return np.random.default_rng(1000 + n).random((1, 4)).astype(np.float32)


def test_cases_reach_the_desk_and_the_server_never_reads_them(fleet: FleetOfOne) -> None:
    stage, folder = fleet.stage, fleet.stage.root / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(model_bytes(1.0))
    stage.pilotwave("models", "create", "detector", "--publisher", "keys/publisher.pem")
    fleet.publish("detector", "1.0.0", folder)
    fleet.assign("detector", "1.0.0")
    fleet.until("detector", "1.0.0", "healthy", "probation")
    with LiveModel("detector", data=fleet.data, app="test", wait_s=60) as model:
        for n in range(CASES):
            model.score(0.1, model.run({"x": known_input(n)}))
            wait_until(lambda n=n: _made(fleet) > n, lambda: "a case")  # type: ignore[misc]
    wait_until(
        lambda: len(_listed(fleet)) == CASES, lambda: f"cases at the server: {_listed(fleet)}"
    )
    wait_until(lambda: _waiting(fleet) == 0, lambda: "the device still has some")
    key = ("--key", "keys/reader.pem")
    said = stage.run("pilotwave", "captures", "pull", "--to", "cases", *key)
    assert f"{CASES} cases more" in " ".join(said.split())
    index = stage.root / "cases" / "cases.jsonl"
    rows = [json.loads(line) for line in index.read_text().splitlines()]
    inputs = {load_file(index.parent / row["file"])["input.x"].tobytes() for row in rows}
    assert inputs == {known_input(n).tobytes() for n in range(CASES)}  # all of them, each once
    assert {(r["device"], r["model"], r["reason"], r["label"]) for r in rows} == {
        ("board", "detector", "low_score", None)
    }
    # plain, or compressed as it was before it was sealed
    packed = [zlib.compress((index.parent / row["file"]).read_bytes(), 1) for row in rows]
    _nowhere([*inputs, *packed], [stage.root / "data", fleet.data])
    # labels that were filled in stay
    index.write_text("".join(json.dumps({**row, "label": "cat"}) + "\n" for row in rows))
    assert "0 cases more" in stage.run("pilotwave", "captures", "pull", "--to", "cases", *key)
    assert index.read_text().count('"label": "cat"') == CASES

    stage.run("pilotwave", "keys", "reader", "--out", "keys/other.pem", "--plain")
    other = ("--key", "keys/other.pem", "--to", "other")
    assert "0 cases more" in stage.run("pilotwave", "captures", "pull", *other)
    said = stage.run("pilotwave", "captures", "delete", "--device", "board", "--yes")
    assert f"deleted {CASES} cases" in said
    assert _listed(fleet) == []


def _made(fleet: FleetOfOne) -> int:
    return len(_listed(fleet)) + _waiting(fleet)


def _listed(fleet: FleetOfOne) -> list[dict[str, object]]:
    found = fleet.stage.ask("captures", "list")
    rows: list[dict[str, object]] = found["items"] if isinstance(found, dict) else found
    return rows


def _waiting(fleet: FleetOfOne) -> int:
    folders = (fleet.data / "captures", fleet.data / "live" / "detector")
    return len({path.name for folder in folders for path in folder.glob("[!.]*.case")})


def _nowhere(known: list[bytes], folders: list[Path]) -> None:
    """No file of the server or the device holds any of these bytes."""
    looked = 0
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                looked += 1
                content = path.read_bytes()
                assert not any(one in content for one in known), path
    assert looked > 20

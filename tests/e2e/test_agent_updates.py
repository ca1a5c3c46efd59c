"""The agent goes through a rollout like a model: a real server, the command line, a real agent.

A stand-in for systemd starts the agent's launcher again whenever what it started has ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pilotwave_agent.self_update import launch
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until
from tests.service import service
from tests.wheelhouses import RUN, version_in, wheelhouse

pytestmark = pytest.mark.timeout(300)
MODEL = launch.MODEL
BOOM = "\nimport os\nif os.environ.get('PILOTWAVE_SLOT'):\n    raise RuntimeError('boom')\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetOfOne]:
    def patient(data: Path) -> AbstractContextManager[object]:
        settings = data / "agent.toml"
        settings.write_text(f"self_update_timeout_s = 30\n{settings.read_text()}")
        return service(data)

    with fleet_of_one(tmp_path, service=patient) as found:
        publisher = ("--publisher", "keys/publisher.pem")
        found.stage.pilotwave("models", "create", MODEL, *publisher, "--yes")
        yield found


def publish(fleet: FleetOfOne, files: Mapping[str, bytes]) -> str:
    version = version_in(files)
    folder = fleet.stage.root / version
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    # code that deals with passwords looks as if it held one
    wheels = [word for name in files if name.endswith(".whl") for word in ("--not-secret", name)]
    fleet.publish(MODEL, version, folder, *wheels)
    return version


def test_a_new_agent_comes_by_a_rollout_and_a_bad_one_is_taken_back(fleet: FleetOfOne) -> None:
    stage = fleet.stage
    wait_until(lambda: bool(fleet.facts().get("agent.updates")), lambda: str(fleet.device()))
    before = fleet.device()["agent"]
    good = publish(fleet, wheelhouse({RUN: "\n# another build\n"}))
    assert before != good
    bad = publish(fleet, wheelhouse({RUN: BOOM}))

    words = ("--policy", "everyone-now", "--start", "--yes")
    rollout = stage.ask("rollouts", "create", MODEL, good, "--group", "boards", *words)["id"]

    def state(wanted: str) -> bool:
        return bool(stage.ask("rollouts", "show", rollout)["state"] == wanted)

    wait_until(lambda: state("completed"), lambda: stage.pilotwave("rollouts", "show", rollout))
    fleet.until(MODEL, good, "healthy")
    assert fleet.device()["agent"] == good

    rollout = stage.ask("rollouts", "create", MODEL, bad, "--group", "boards", *words)["id"]

    def shown() -> str:
        return " ".join(stage.pilotwave("rollouts", "show", rollout).split())

    wait_until(lambda: "1 of 1 device failed (1 app_refused)" in shown(), shown)
    fleet.until(MODEL, good, "rolled_back")
    assert fleet.device()["agent"] == good
    told = stage.pilotwave("devices", "why", "board", "--model", MODEL)
    assert "started 5 times and proved nothing" in " ".join(told.split())

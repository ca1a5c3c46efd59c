"""The agent goes through a rollout like a model: a real server, the command line, a real agent.

A stand-in for systemd starts the agent's launcher again whenever what it started has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import pytest

from pilotwave_agent.self_update import launch
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until
from tests.service import service
from tests.wheelhouses import RUN, version_in, wheelhouse

pytestmark = [pytest.mark.timeout(300), pytest.mark.long]
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


POLICY = """
name: two-first
waves:
  - {name: first, count: 2, min_sample: 2, gates: [{name: install, max_failure_rate: 5%}]}
  - {percent: 100%, gates: [{name: install, max_failure_rate: 5%}]}
on_failure: rollback
deadlines: {unreached: 1d}
"""
BOARDS = [f"board-{n}" for n in range(1, 7)]


@pytest.fixture
def six(fleet: FleetOfOne) -> Iterator[FleetOfOne]:
    """Five more devices beside the first one, each with its own service."""
    stage = fleet.stage
    (stage.root / "policy.yaml").write_text(POLICY)
    with ExitStack() as stack:
        for name in BOARDS[1:]:
            made = stage.ask("codes", "create", "--label", "site=here")
            code = (made["items"] if isinstance(made, dict) else made)[0]["code"]
            who = ("--server", stage.url, "--name", name, "--code", code)
            stage.run("pilotwave-agent", "enrol", *who, "--root", "keys/root.json", "--data", name)
            settings = stage.root / name / "agent.toml"
            settings.write_text(
                f"probation_s = 1\nself_update_timeout_s = 60\n{settings.read_text()}"
            )
            stack.enter_context(service(stage.root / name))
        yield fleet


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_six_agents_go_through_waves_and_two_canaries_send_a_bad_one_back(six: FleetOfOne) -> None:
    stage = six.stage
    good = publish(six, wheelhouse({RUN: "\n# another build\n"}))
    bad = publish(six, wheelhouse({RUN: BOOM}))

    def agents() -> Counter[str]:
        return Counter(device["agent"] for device in stage.ask("devices", "list"))

    def takes(version: str) -> str:
        words = ("--group", "boards", "--policy-file", "policy.yaml", "--start", "--yes")
        made = stage.ask("rollouts", "create", MODEL, version, *words)
        return str(made["id"])

    def ends(rollout: str, wanted: str) -> None:
        def shown() -> str:
            return f"{stage.pilotwave('rollouts', 'show', rollout)} {agents()}"

        for _ in range(5):  # what takes one device a minute takes six on two cores longer
            with suppress(AssertionError):
                return wait_until(
                    lambda: bool(stage.ask("rollouts", "show", rollout)["state"] == wanted), shown
                )
        raise AssertionError(shown())

    wait_until(lambda: sum(agents().values()) == 6, lambda: str(agents()))
    rollout = takes(good)
    ends(rollout, "completed")
    assert agents() == {good: 6}
    assert [w["healthy"] for w in stage.ask("rollouts", "show", rollout)["waves"]] == [2, 4]

    rollout = takes(bad)
    ends(rollout, "rolled_back")
    wait_until(lambda: agents() == {good: 6}, lambda: str(agents()))
    told = stage.ask("rollouts", "devices", rollout)
    assert sorted(row["outcome"] for row in told) in (["rolled_back"] * 2, ["returned"] * 2), told

"""A version is tried beside the one that serves: a real server, agent and application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave_agent.live import LiveModel
from tests.agent.test_shadow_live import answers_until
from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"
MODEL = "detector"
QUICK = {"PILOTWAVE_POLL_INTERVAL_S": "1", "PILOTWAVE_CHECK_IN_INTERVAL_S": "1"}
POLICY = """
waves:
  - name: tried
    count: 1
    shadow: {share: 100%, cpu: 100%, min_calls: CALLS}
  - name: everyone
    percent: 100%
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetOfOne]:
    with fleet_of_one(tmp_path, server=QUICK) as found:
        found.stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
        for version in ("1.0.0", "1.1.0", "1.3.0"):
            found.publish(MODEL, version, DIGITS / version)
        found.assign(MODEL, "1.0.0")
        found.until(MODEL, "1.0.0", "healthy")
        yield found


@pytest.fixture
def application(fleet: FleetOfOne) -> Iterator[LiveModel]:
    with LiveModel(MODEL, data=fleet.data, app="eye", heartbeat_s=0.5, wait_s=60.0) as model:
        yield model


def try_out(fleet: FleetOfOne, version: str, calls: int) -> str:
    """Roll a version out by way of a shadow wave; return the rollout."""
    name = f"by-shadow-{calls}"
    (fleet.stage.root / "policy.yaml").write_text(POLICY.replace("CALLS", str(calls)))
    fleet.stage.pilotwave("policies", "save", name, "policy.yaml")
    by = ("--group", "boards", "--policy", name, "--start", "--yes")
    made = fleet.stage.ask("rollouts", "create", MODEL, version, *by)
    assert isinstance(made, dict)
    return str(made["id"])


def is_tried(fleet: FleetOfOne, version: str) -> bool:
    found = fleet.slot(MODEL)
    return (found.get("state"), found.get("candidate_version")) == ("shadowing", version)


def fetches(fleet: FleetOfOne) -> list[str]:
    """Return the versions that the device began to fetch."""
    lines = (fleet.data / "journal" / "log").read_bytes().splitlines()
    events = [json.loads(line[9:]).get("event", {}) for line in lines]
    return [e["version"] for e in events if e.get("kind") == "fetching"]


def runs(fleet: FleetOfOne, version: str) -> bool:
    found = fleet.slot(MODEL)
    return (found.get("state"), found.get("current_version")) == ("healthy", version)


def test_a_version_is_tried_and_then_switched_to_or_forgotten(
    fleet: FleetOfOne, application: LiveModel
) -> None:
    rollout = try_out(fleet, "1.1.0", calls=5)
    assert answers_until(application, lambda: is_tried(fleet, "1.1.0")) == {"1.0.0"}
    assert answers_until(application, lambda: runs(fleet, "1.1.0")) <= {"1.0.0", "1.1.0"}
    assert fetches(fleet) == ["1.0.0", "1.1.0"]
    state = lambda: fleet.stage.ask("rollouts", "show", rollout)  # noqa: E731
    wait_until(lambda: state()["state"] == "completed", lambda: str(state()))
    # the next one is taken back before anybody met it
    rollout = try_out(fleet, "1.3.0", calls=1_000_000)
    assert answers_until(application, lambda: is_tried(fleet, "1.3.0")) == {"1.1.0"}
    fleet.stage.pilotwave("rollouts", "rollback", rollout, "--reason", "enough", "--yes")
    link = fleet.data / "models" / MODEL / "shadow"
    ended = lambda: runs(fleet, "1.1.0") and not link.is_symlink()  # noqa: E731
    assert answers_until(application, ended) == {"1.1.0"}
    assert not (fleet.data / "live" / MODEL / "shadow.json").exists()

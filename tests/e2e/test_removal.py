"""A model is taken off a device and comes back: a real server, the command line, a real agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet_of_one import FleetOfOne, fleet_of_one, wait_until

pytestmark = pytest.mark.timeout(300)

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"
MODEL = "detector"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetOfOne]:
    with fleet_of_one(tmp_path) as found:
        found.stage.pilotwave("models", "create", MODEL, "--publisher", "keys/publisher.pem")
        found.publish(MODEL, "1.0.0", DIGITS / "1.0.0")
        found.assign(MODEL, "1.0.0")
        found.until(MODEL, "1.0.0", "healthy")
        yield found


def test_a_model_is_removed_and_assigned_again(fleet: FleetOfOne) -> None:
    stage = fleet.stage
    refused = stage.run("pilotwave", "devices", "remove", "board", "--model", MODEL, check=False)
    assert "1 device runs detector; its files go" in refused
    said = stage.pilotwave("unassign", MODEL, "--group", "boards", "--remove", "--yes")
    assert "1 device runs detector" in said
    wait_until(lambda: not fleet.slot(MODEL), lambda: str(fleet.slot(MODEL)))
    assert not list((fleet.data / "models").iterdir())
    assert not list((fleet.data / "blobs").iterdir())
    told = stage.pilotwave("devices", "why", "board", "--model", MODEL)
    assert "is told to remove detector" in told
    fleet.assign(MODEL, "1.0.0")
    fleet.until(MODEL, "1.0.0", "healthy")

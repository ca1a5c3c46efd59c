"""The metrics are in the form and the units that Prometheus asks for."""

from __future__ import annotations

import shutil
import subprocess

import httpx
import pytest

from tests.server.fleet_fixtures import Fleet, fleet, only_sqlite, published

__all__ = ["fleet", "published"]
PROMTOOL = shutil.which("promtool") or ""
pytestmark = only_sqlite


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed (Debian's prometheus)")
def test_promtool_finds_no_fault(fleet: Fleet, viewer: httpx.Client) -> None:
    fleet.device("cam-1")
    text = viewer.get("/metrics").text
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_units_are_base_units(fleet: Fleet, viewer: httpx.Client) -> None:
    names = {
        line.split()[2]
        for line in viewer.get("/metrics").text.splitlines()
        if line.startswith("# HELP pilotwave_")
    }
    bad = ("_days", "_hours", "_minutes", "_ms", "_milliseconds", "_mb", "_kb", "_percent")
    assert names
    assert not [name for name in names if name.endswith(bad)]


def test_the_fleet_is_counted(fleet: Fleet, viewer: httpx.Client) -> None:
    fleet.device("cam-1", site="a")
    fleet.group("a", "site=a")
    wish = {"model": "detector", "version": "1.1.0", "group": "a", "policy": "standard"}
    assert fleet.operator.post("/api/v1/rollouts", json=wish).status_code == 201
    shown = viewer.get("/metrics").text
    assert 'pilotwave_devices{state="enrolled"} 1.0' in shown
    assert 'pilotwave_rollouts{state="draft"} 1.0' in shown
    assert "pilotwave_devices_silent 0.0" in shown
    assert "pilotwave_devices_in_conflict 0.0" in shown

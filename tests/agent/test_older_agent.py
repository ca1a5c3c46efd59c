"""The agent of before shadows takes over a device with a version in shadow, and comes right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pilotwave_agent.core.journal import Journal
from pilotwave_agent.host.disk import Disk
from pilotwave_protocol.states import ModelState as S
from tests.agent.shadowed import TRIED, is_forgotten, is_tried, order, ready, running, tried
from tests.history import BEFORE_SHADOWS, unpack
from tests.peers.device import Device
from tests.peers.registry import Registry

__all__ = ["ready", "tried"]
pytestmark = pytest.mark.needs("history")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of that agent."""
    folder = tmp_path_factory.mktemp("older") / "before"
    unpack(BEFORE_SHADOWS, folder)
    return folder / "agent"


def works(device: Device, source: Path) -> None:
    """Deliver what is ordered, and let the agent of that source do one round."""
    config = device.config_path
    if "allow_unsafe_formats" not in config.read_text():
        config.write_text("allow_unsafe_formats = true\nprobation_s = 0\n" + config.read_text())
    ended = subprocess.run(
        [sys.executable, "-m", "pilotwave_agent.cli", "once", "--config", str(config)],
        env={**os.environ, "PYTHONPATH": str(source)},
        cwd=device.config.data_dir.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr


@pytest.fixture(params=["lines", "compacted"])
def left(request: pytest.FixtureRequest, tried: Device) -> Device:
    """A device with 1.1.0 in shadow, its journal as the new agent left it."""
    if request.param == "compacted":
        Journal(Disk(), tried.layout.journal).compact()
    assert is_tried(tried)
    return tried


def test_it_waits_while_the_shadow_is_ordered_and_switches_nothing(
    registry: Registry, left: Device, older: Path
) -> None:
    works(left, older)
    report = registry.check_ins[-1].models[0]
    assert (report.state, report.reason) == (S.TESTING, "waiting_condition")
    assert report.detail is not None
    assert "the condition shadow, which this agent does not know" in report.detail
    assert left.current().startswith("1.0.0")
    # and the agent that comes after it has the shadow again, without another test
    left.work(boot=True)
    assert is_tried(left)
    assert [e.kind for e in registry.events.values()].count("tested") == 2  # 1.0.0's and 1.1.0's


def test_it_forgets_what_is_ordered_no_more(registry: Registry, left: Device, older: Path) -> None:
    order(registry, "1.0.0")
    works(left, older)
    assert running(left.slot()) == (S.HEALTHY, "1.0.0")
    # the link is beyond it; the next agent that knows of it puts it right
    left.work(boot=True)
    is_forgotten(left)


def test_it_switches_to_what_is_ordered_in_earnest(
    registry: Registry, left: Device, older: Path
) -> None:
    order(registry, "1.1.0")
    works(left, older)
    assert left.current().startswith("1.1.0")
    assert [e.kind for e in registry.events.values()].count("tested") == 2


def test_what_is_remembered_is_not_lost_with_it(
    registry: Registry, left: Device, older: Path
) -> None:
    before = left.state
    works(left, older)
    assert left.state.numbering == before.numbering
    assert left.state.memory == before.memory
    assert left.state.orders["detector"].conditions == TRIED

"""No kill and no power cut switches to a version in shadow, or leaves a shadow half ended."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.settings.config import Config
from pilotwave_agent.version_folder import intact
from pilotwave_agent.work import Job, work
from pilotwave_protocol.states import ModelState as S
from tests.agent.killing import left_lying, work_until
from tests.agent.powercut import Run, lay_out, moved_to, some
from tests.agent.recorder import Plain
from tests.agent.shadowed import (
    TRIED,
    is_forgotten,
    is_tried,
    link,
    order,
    ready,
    running,
    told,
    tried,
)
from tests.forking import Forker, forker
from tests.peers.device import Device
from tests.peers.registry import Registry

__all__ = ["ready", "tried"]
SHARES = 10


def into_shadow(registry: Registry, device: Device) -> Callable[[Device], None]:
    """1.1.0 is ordered to be tried."""
    order(registry, "1.1.0", **TRIED)
    return is_in_shadow


def is_in_shadow(device: Device) -> None:
    assert is_tried(device)


def out_to_switch(registry: Registry, device: Device) -> Callable[[Device], None]:
    """What is in shadow is ordered in earnest."""
    has_begun(registry, device)
    order(registry, "1.1.0")
    return has_switched


def has_switched(device: Device) -> None:
    assert running(device.slot()) == (S.HEALTHY, "1.1.0")
    assert device.current().startswith("1.1.0")
    assert not link(device).is_symlink()
    assert not told(device).exists()


def out_to_nothing(registry: Registry, device: Device) -> Callable[[Device], None]:
    """What runs is ordered again."""
    has_begun(registry, device)
    order(registry, "1.0.0")
    return has_forgotten


def has_forgotten(device: Device) -> None:
    assert running(device.slot()) == (S.HEALTHY, "1.0.0")
    is_forgotten(device)


def has_begun(registry: Registry, device: Device) -> None:
    order(registry, "1.1.0", **TRIED)
    device.work(refresh=True)
    assert is_tried(device)


Story = Callable[[Registry, Device], Callable[[Device], None]]
STORIES = [into_shadow, out_to_switch, out_to_nothing]
stories = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)


def check_serves(device: Device, *, may_switch: bool) -> ModelSlot:
    """See that the link names one whole version, and only what is ordered to be switched to."""
    slot = device.slot()
    named = device.current()[:5]
    assert named == "1.0.0" or may_switch
    versions = [v for v in (slot.current, slot.candidate, slot.previous) if v]
    (version,) = {v for v in versions if v.version == named}
    assert intact(Disk(), device.layout, "detector", version, deep=True)
    return slot


@pytest.fixture(scope="module")
def victims() -> Iterator[Forker]:
    with forker("pilotwave_agent.work", "tests.agent.killing") as made:
        yield made


def copy_of(device: Device, folder: Path) -> Device:
    shutil.copytree(device.config.data_dir, folder / "data", symlinks=True)
    return moved_to(device, folder / "data")


@stories
@pytest.mark.parametrize(
    "share", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, SHARES))]
)
def test_a_kill_at_any_step_ends_where_it_was_to_end(
    registry: Registry, ready: Device, victims: Forker, tmp_path: Path, story: Story, share: int
) -> None:
    arrived = story(registry, ready)
    ready.deliver()
    whole = work_until(victims, copy_of(ready, tmp_path / "whole").config)
    deaths = [(n, False) for n in range(1, whole.changes + 1)] + [(n, True) for n in whole.writes]
    assert len(deaths) > 10
    for step, torn in deaths[share::SHARES]:
        device = copy_of(ready, tmp_path / f"{step}{torn}")
        assert work_until(victims, device.config, dies_at=step, torn=torn).killed
        check_serves(device, may_switch=story is out_to_switch)
        assert not work_until(victims, device.config).killed
        arrived(device)
        assert not left_lying(device.config)
        shutil.rmtree(device.config.data_dir)


def record(registry: Registry, config: Config) -> Run:
    """Record the work from the directive's arrival on."""
    run = Run(config.data_dir)
    inbox = config.data_dir / "inbox"
    run.make_dirs(inbox)
    run.write_atomic(inbox / "directive.json", registry.directive)
    work(config, Job(token="token", refresh=True, boot=True), disk=run)
    run.finish()
    return run


@stories
@pytest.mark.parametrize("most", [8, pytest.param(400, marks=pytest.mark.slow)])
def test_a_power_cut_at_any_moment_ends_where_it_was_to_end(
    registry: Registry, ready: Device, tmp_path: Path, story: Story, most: int
) -> None:
    arrived = story(registry, ready)
    run = record(registry, ready.config)
    assert run.broken_promises() == []
    assert run.moments > 15
    for tree in some(run.states, max(len(run.states) // most, 1)):
        lay_out(tree, tmp_path / "left")
        device = moved_to(ready, tmp_path / "left")
        check_serves(device, may_switch=story is out_to_switch)
        done = device.work(disk=Plain(), refresh=True, boot=True)
        assert done.retry is None, done
        arrived(device)

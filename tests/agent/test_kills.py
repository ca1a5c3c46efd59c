"""The agent killed at every step on disk and at random: one whole version, and it gets there."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pilotwave_agent.settings.config import Config
from tests.agent.killing import check_one_whole_version, is_settled, left_lying, work_until
from tests.forking import Forker, forker
from tests.peers.device import Device
from tests.peers.registry import Registry

pytestmark = pytest.mark.long

PROGRAM = {"runtime": "command", "entrypoint": "run", "cases": None, "unsafe_format": True}


def files(version: str) -> dict[str, bytes]:
    """A program that says that it is well: what is tried here are kills, and no runtime."""
    script = f"#!/bin/sh\n# {version}\necho '{{\"cases\": 1}}'\n"
    return {"run": script.encode(), "weights.bin": version.encode() * 4000}


VERSIONS = {v: files(v) for v in ("1.0.0", "1.1.0", "1.3.0")}
SHARES = 8
"""Each share may run beside the others. Half of those at each step, and those at random, together
kill more than 200 times; the other half is run by `make test-all`."""
LOTS = 4
KILLS_AT_RANDOM = 40


@pytest.fixture(scope="module")
def victims() -> Iterator[Forker]:
    with forker("pilotwave_agent.work", "tests.agent.killing") as made:
        yield made


@pytest.fixture
def ready(registry: Registry, device: Device) -> Device:
    """A device on 1.0.0 that is told to run 1.1.0."""
    device.set(allow_unsafe_formats=True)
    for version, content in VERSIONS.items():
        registry.publish("detector", version, content, **PROGRAM)  # type: ignore[arg-type]
    registry.order(registry.versions["detector", "1.0.0"])
    device.work()
    registry.order(registry.versions["detector", "1.1.0"])
    device.deliver()
    return device


def copy_of(device: Device, folder: Path) -> Config:
    """Return the settings of a copy of the device, as it is now."""
    shutil.copytree(device.config.data_dir, folder / "data", symlinks=True)
    return replace(device.config, data_dir=folder / "data")


def check_arrived(config: Config, version: str) -> None:
    assert check_one_whole_version(config, VERSIONS) == version
    assert is_settled(config, version)
    assert not left_lying(config)


@pytest.mark.parametrize(
    "share",
    [*range(0, SHARES, 2), *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 5, 7))],
)
def test_a_kill_at_any_step_leaves_one_whole_version(
    ready: Device, victims: Forker, tmp_path: Path, share: int
) -> None:
    """Before each change on disk, and in the middle of each that writes bytes."""
    whole = work_until(victims, copy_of(ready, tmp_path / "whole"))
    assert whole.changes > 50
    assert len(whole.writes) > 5
    deaths = [(n, False) for n in range(1, whole.changes + 1)] + [(n, True) for n in whole.writes]
    for step, torn in deaths[share::SHARES]:
        config = copy_of(ready, tmp_path / f"{step}{torn}")
        assert work_until(victims, config, dies_at=step, torn=torn).killed
        check_one_whole_version(config, VERSIONS)
        assert not work_until(victims, config).killed
        check_arrived(config, "1.1.0")
        shutil.rmtree(config.data_dir)


@pytest.mark.parametrize("seed", range(LOTS))
def test_kills_at_random_leave_one_whole_version(
    registry: Registry, ready: Device, victims: Forker, seed: int
) -> None:
    """At a random moment or a random step, again and again, while orders change."""
    luck, kills, wanted = random.Random(seed), 0, "1.1.0"
    while kills < KILLS_AT_RANDOM:
        moment = {"seconds": luck.uniform(0.005, 0.4)}
        step = {"dies_at": luck.randint(1, 60), "torn": luck.random() < 0.5}
        kills += work_until(victims, ready.config, **luck.choice((moment, step))).killed
        check_one_whole_version(ready.config, VERSIONS)
        if is_settled(ready.config, wanted):
            wanted = luck.choice([v for v in VERSIONS if v != wanted])
            registry.order(registry.versions["detector", wanted])
            ready.deliver()
    assert not work_until(victims, ready.config).killed
    check_arrived(ready.config, wanted)

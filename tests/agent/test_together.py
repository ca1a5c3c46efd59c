"""Models are independent unless an order ties them; tied ones change together or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.core.journal import read_state
from pilotwave_agent.core.state import DeviceState
from pilotwave_agent.core.ties import is_tested
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.settings.config import Config, ProbeSettings
from pilotwave_protocol.states import ModelState as S
from pilotwave_protocol.states import Reason
from tests.agent.killing import left_lying, work_until
from tests.forking import Forker, forker
from tests.peers.device import Device
from tests.peers.registry import Registry

PROGRAM = {"runtime": "command", "entrypoint": "run", "cases": None, "unsafe_format": True}
MODELS = ("big", "small")
HUGE = {"disk_free_mb": 99_000_000}
TIE = {"together": ["small"]}
SHARES = 8


def program(version: str, status: int = 0) -> dict[str, bytes]:
    script = f"#!/bin/sh\n# {version}\necho '{{\"cases\": 1}}'\nexit {status}\n"
    return {"run": script.encode(), "weights.bin": version.encode() * 400}


@pytest.fixture
def ready(registry: Registry, device: Device) -> Device:
    """A device that runs 1.0.0 of both models."""
    device.set(allow_unsafe_formats=True)
    for model in MODELS:
        for version in ("1.0.0", "1.1.0"):
            files = program(f"{model} {version}")
            registry.publish(model, version, files, **PROGRAM)  # type: ignore[arg-type]
    order(registry, "1.0.0")
    device.work(refresh=True)
    assert running(device.state) == {"big": "1.0.0", "small": "1.0.0"}
    return device


def order(registry: Registry, version: str, attempt: int = 0, **conditions: Any) -> None:
    """Order a version of both; `conditions` are each model's."""
    entries = [
        replace(registry.versions[model, version], conditions=conditions.get(model, {}))
        for model in MODELS
    ]
    registry.order(*entries, attempt=attempt)


def running(state: DeviceState) -> dict[str, str | None]:
    slots = {model: state.slot(model) for model in MODELS}
    return {model: slot.current and slot.current.version for model, slot in slots.items()}


def test_a_model_that_is_held_holds_up_no_other(registry: Registry, ready: Device) -> None:
    order(registry, "1.1.0", big=HUGE)
    ready.work(refresh=True)
    assert running(ready.state) == {"big": "1.0.0", "small": "1.1.0"}
    assert ready.slot("small").state is S.HEALTHY
    assert ready.slot("big").reason == Reason.WAITING_DISK


def test_a_model_that_cannot_be_had_holds_up_no_other(registry: Registry, ready: Device) -> None:
    files = program("big 1.1.0")
    from pilotwave_protocol.digest import sha256_hex

    registry.files.pop(f"/blobs/{sha256_hex(files['weights.bin'])}")
    order(registry, "1.1.0")
    ready.work(refresh=True)
    assert running(ready.state) == {"big": "1.0.0", "small": "1.1.0"}
    assert ready.slot("big").reason


@pytest.mark.parametrize("says_it", MODELS)
def test_a_tied_model_waits_for_the_other_and_says_so(
    registry: Registry, ready: Device, says_it: str
) -> None:
    tie = {"together": [*MODELS]}
    held = {**HUGE, **(tie if says_it == "big" else {})}
    order(registry, "1.1.0", big=held, small=tie if says_it == "small" else {})
    ready.work(refresh=True)
    assert running(ready.state) == {"big": "1.0.0", "small": "1.0.0"}
    small = ready.slot("small")
    assert (small.state, small.reason) == (S.STAGED, Reason.WAITING_TOGETHER)
    assert small.detail
    assert "big 1.1.0 is not staged yet" in small.detail
    order(registry, "1.1.0", big=TIE)
    ready.work()
    assert running(ready.state) == {"big": "1.1.0", "small": "1.1.0"}
    assert {ready.slot(model).state for model in MODELS} == {S.HEALTHY}


def test_a_tied_model_that_fails_its_test_keeps_the_other_where_it_is(
    registry: Registry, ready: Device
) -> None:
    registry.publish("small", "1.2.0", program("small 1.2.0", 1), **PROGRAM)  # type: ignore[arg-type]
    registry.publish("big", "1.2.0", program("big 1.2.0"), **PROGRAM)  # type: ignore[arg-type]
    order(registry, "1.2.0", big=TIE)
    ready.work(refresh=True)
    assert running(ready.state) == {"big": "1.0.0", "small": "1.0.0"}
    assert ready.slot("small").state is S.FAILED
    big = ready.slot("big")
    assert big.reason == Reason.WAITING_TOGETHER
    assert big.detail
    assert "small 1.2.0 failed here" in big.detail
    # another order is taken at once
    order(registry, "1.1.0")
    ready.work()
    assert running(ready.state) == {"big": "1.1.0", "small": "1.1.0"}


@pytest.mark.parametrize("bad", MODELS)
def test_a_tied_model_that_fails_in_use_takes_the_other_back(
    registry: Registry, ready: Device, tmp_path: Path, bad: str
) -> None:
    script = tmp_path / "probe"
    script.write_text(f'#!/bin/sh\n[ "$PILOTWAVE_MODEL/$PILOTWAVE_VERSION" != {bad}/1.1.0 ]\n')
    script.chmod(0o755)
    ready.set(
        probe=ProbeSettings("exec", (str(script),), interval_s=0.1, failures=1), probation_s=0.3
    )
    order(registry, "1.1.0", big=TIE)
    for _ in range(4):
        ready.work(refresh=True)
    assert running(ready.state) == {"big": "1.0.0", "small": "1.0.0"}
    other = next(model for model in MODELS if model != bad)
    slot = ready.slot(other)
    assert slot.reason == Reason.WAITING_TOGETHER
    assert slot.detail
    assert f"{bad} 1.1.0 failed here" in slot.detail
    assert not slot.failures


# --- killed at any step


@pytest.fixture(scope="module")
def victims() -> Iterator[Forker]:
    with forker("pilotwave_agent.work", "tests.agent.killing") as made:
        yield made


def copy_of(device: Device, folder: Path) -> Config:
    shutil.copytree(device.config.data_dir, folder / "data", symlinks=True)
    return replace(device.config, data_dir=folder / "data")


def state_of(config: Config) -> DeviceState:
    return read_state(Layout(config.data_dir).journal)


def check_no_half_begun(state: DeviceState) -> None:
    """Where one runs the new version, the other has passed its test and follows at once."""
    found = running(state)
    if len(set(found.values())) > 1:
        behind = next(state.slot(model) for model in MODELS if found[model] == "1.0.0")
        assert behind.state is S.SWITCHING or is_tested(behind), behind


@pytest.mark.parametrize(
    "share", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, SHARES))]
)
def test_a_kill_at_any_step_leaves_tied_models_together(
    registry: Registry, ready: Device, victims: Forker, tmp_path: Path, share: int
) -> None:
    order(registry, "1.1.0", big=TIE)
    ready.deliver()
    whole = work_until(victims, copy_of(ready, tmp_path / "whole"))
    deaths = [(n, False) for n in range(1, whole.changes + 1)] + [(n, True) for n in whole.writes]
    for step, torn in deaths[share::SHARES]:
        config = copy_of(ready, tmp_path / f"{step}{torn}")
        assert work_until(victims, config, dies_at=step, torn=torn).killed
        check_no_half_begun(state_of(config))
        assert not work_until(victims, config).killed
        assert running(state_of(config)) == {"big": "1.1.0", "small": "1.1.0"}
        assert not left_lying(config)
        shutil.rmtree(config.data_dir)

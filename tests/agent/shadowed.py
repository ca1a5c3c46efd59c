"""A device with a version in shadow, and what is to be seen of it on disk."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.core.state import ModelSlot
from pilotwave_agent.host.layout import folder_name
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import ModelState as S
from tests.peers.device import Device
from tests.peers.registry import Registry

PROGRAM = {"runtime": "command", "entrypoint": "run", "cases": None, "unsafe_format": True}
RULES = {"share": 0.05, "cpu": 0.1, "min_calls": 500}
TRIED = {"shadow": RULES}


def program(version: str, status: int = 0) -> dict[str, bytes]:
    script = f"#!/bin/sh\n# {version}\necho '{{\"cases\": 1}}'\nexit {status}\n"
    return {"run": script.encode(), "weights.bin": version.encode() * 400}


def publish(registry: Registry, version: str, status: int = 0, model: str = "detector") -> Entry:
    files = program(f"{model} {version}", status)
    return registry.publish(model, version, files, **PROGRAM)  # type: ignore[arg-type]


def order(registry: Registry, version: str, **conditions: Any) -> None:
    entry = registry.versions["detector", version]
    registry.order(replace(entry, conditions=conditions, rollout="r1"))


@pytest.fixture
def ready(registry: Registry, device: Device) -> Device:
    """A device that runs 1.0.0, with 1.1.0 published."""
    device.set(allow_unsafe_formats=True)
    publish(registry, "1.0.0")
    publish(registry, "1.1.0")
    order(registry, "1.0.0")
    device.work(refresh=True, boot=True)
    assert device.slot().state is S.HEALTHY
    return device


@pytest.fixture
def tried(registry: Registry, ready: Device) -> Device:
    """The same device with 1.1.0 in shadow."""
    order(registry, "1.1.0", **TRIED)
    ready.work(refresh=True)
    assert is_tried(ready)
    return ready


def link(device: Device) -> Path:
    return device.layout.models / "detector" / "shadow"


def told(device: Device) -> Path:
    return device.layout.live / "detector" / "shadow.json"


def is_tried(device: Device, version: str = "1.1.0", beside: str = "1.0.0") -> bool:
    """See that a device tries a version and shows it to applications, and serves another."""
    slot = device.slot()
    if slot.state is not S.SHADOWING:
        return False
    assert slot.candidate is not None
    assert slot.current is not None
    assert (slot.candidate.version, slot.current.version) == (version, beside)
    assert device.current().startswith(beside)
    assert link(device).readlink() == Path("versions") / folder_name(slot.candidate)
    assert (link(device) / "weights.bin").read_bytes() == program(f"detector {version}")[
        "weights.bin"
    ]
    said = json.loads(told(device).read_bytes())
    assert said == {
        "schema": "pilotwave/shadow/1",
        "name": folder_name(slot.candidate),
        "version": version,
        "rollout": "r1",
        **device.state.orders["detector"].conditions["shadow"],
    }
    return True


def is_forgotten(device: Device, version: str = "1.1.0") -> None:
    """See that nothing of a shadow is shown any more."""
    assert not link(device).is_symlink()
    assert not told(device).exists()
    assert device.slot().state is not S.SHADOWING
    kept = os.listdir(device.layout.versions("detector"))
    assert not [name for name in kept if name.startswith(version)], kept


def running(slot: ModelSlot) -> tuple[S, str | None]:
    return slot.state, slot.current.version if slot.current else None

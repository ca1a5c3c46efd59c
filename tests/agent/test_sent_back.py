"""A directive that names the version before sends a device back: from its own disk, at once."""

from __future__ import annotations

from pathlib import Path

from pilotwave_agent.settings.config import ProbeSettings
from pilotwave_protocol.states import ModelState, Reason
from tests.peers.device import Device, device, registry
from tests.peers.registry import Registry, example

__all__ = ["device", "registry"]
V1, V2, V3 = "1.0.0", "1.1.0", "1.3.0"


def blobs(registry: Registry) -> int:
    """How often any blob was asked for."""
    return sum("/blobs/" in request for request in registry.requests)


def publish(registry: Registry, *versions: str) -> None:
    for version in versions:
        registry.publish("detector", version, example(version))


def run(device: Device, version: str) -> None:
    registry = device.registry
    registry.order(registry.versions["detector", version])
    device.work()
    assert device.slot().current is not None
    assert device.slot().current.version == version  # type: ignore[union-attr]


def kinds(device: Device) -> list[tuple[str, str | None, str | None]]:
    return [(e.kind, e.version, e.reason) for e in device.state.events]


def test_nothing_is_downloaded_and_nothing_tested_anew(device: Device, registry: Registry) -> None:
    publish(registry, V1, V2)
    run(device, V1)
    run(device, V2)
    before, tests = blobs(registry), len([k for k in kinds(device) if k[0] == "tested"])
    run(device, V1)
    assert blobs(registry) == before
    assert device.slot().state is ModelState.HEALTHY
    assert ("rolled_back", V2, str(Reason.OPERATOR_ROLLBACK)) in kinds(device)
    assert len([k for k in kinds(device) if k[0] == "tested"]) == tests
    assert device.current().startswith(V1)


def test_probation_is_not_waited_for(device: Device, registry: Registry) -> None:
    publish(registry, V1, V2)
    run(device, V1)
    device.set(probation_s=600.0, probe=ProbeSettings("exec", ("true",), interval_s=60))
    run(device, V2)
    assert device.slot().state is ModelState.PROBATION
    run(device, V1)
    assert device.slot().state is ModelState.HEALTHY


def test_the_version_that_was_left_is_no_place_to_go_back_to(
    device: Device, registry: Registry
) -> None:
    publish(registry, V1, V2, V3)
    run(device, V1)
    run(device, V2)
    run(device, V1)
    device.set(probe=ProbeSettings("exec", ("false",), interval_s=0.1), probation_s=5.0)
    registry.order(registry.versions["detector", V3])
    device.work()
    assert device.slot().state is ModelState.ROLLED_BACK
    assert device.slot().current is not None
    assert device.slot().current.version == V1  # type: ignore[union-attr]


def test_a_version_before_that_is_damaged_is_fetched(device: Device, registry: Registry) -> None:
    publish(registry, V1, V2)
    run(device, V1)
    folder: Path = device.layout.models / "detector" / "versions" / device.current()
    run(device, V2)
    before = blobs(registry)
    for file in folder.rglob("model.onnx"):
        file.chmod(0o644)
        file.write_bytes(b"\0" * file.stat().st_size)
    run(device, V1)
    assert blobs(registry) > before

"""A device that runs 1.0.0 at an honest registry, to be attacked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.victim import Victim
from tests.attacks.virtual import Believer, VirtualVictim
from tests.peers.device import Device, device, registry
from tests.peers.registry import Registry, example

__all__ = ["device", "registry"]


@pytest.fixture
def victim(registry: Registry, device: Device) -> Victim:
    old = registry.publish("detector", "1.0.0", example("1.0.0"))
    registry.order(old)
    device.work()
    assert device.current().startswith("1.0.0-")
    new = registry.publish("detector", "1.1.0", example("1.1.0"))
    return Victim(registry, device, old, new)


@pytest.fixture(params=["agent", "simulator"])
def believer(request: pytest.FixtureRequest) -> Iterator[Believer]:
    """The agent's victim, then a simulated device: they judge alike."""
    if request.param == "agent":
        yield request.getfixturevalue("victim")
        return
    made = VirtualVictim(request.getfixturevalue("registry"))
    yield made
    made.close()

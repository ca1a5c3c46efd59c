"""What was refused here is judged again when this device became another; nothing else wakes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_agent.host.clock import Clock
from pilotwave_agent.resident.reconsider import Reconsider
from pilotwave_protocol.states import Reason
from tests.agent.resident import resident, settle, wait_until
from tests.peers.device import Device
from tests.peers.registry import Registry, example


class SetClock(Clock):
    """A clock that a test sets."""

    up, ahead = 100.0, 1_000_000.0

    def uptime(self) -> float:
        return self.up

    def wall(self) -> float:
        return self.up + self.ahead


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def looking(device: Device, clock: SetClock) -> Reconsider:
    found = Reconsider(device.config, device.config_path, clock)
    assert not found.is_due(refusing=True)
    return found


def later(looking: Reconsider, clock: SetClock, *, refusing: bool = True) -> bool:
    clock.up += 11
    return looking.is_due(refusing=refusing)


def test_a_clock_that_is_set_is_a_reason_and_one_that_runs_is_none(
    looking: Reconsider, clock: SetClock
) -> None:
    assert not later(looking, clock)
    clock.ahead += 30
    assert not later(looking, clock)
    clock.ahead -= 3600
    assert not looking.is_due(refusing=True), "it looks at most every ten seconds"
    assert later(looking, clock)
    assert not later(looking, clock)


def test_settings_that_change_are_a_reason_while_something_is_refused(
    looking: Reconsider, clock: SetClock, device: Device
) -> None:
    def touch() -> None:
        device.config_path.write_text(device.config_path.read_text() + "\n")

    touch()
    assert not later(looking, clock, refusing=False)
    assert not later(looking, clock)
    touch()
    assert later(looking, clock)


def test_a_device_that_refused_an_order_takes_it_once_its_own_settings_allow(
    registry: Registry, device: Device, tmp_path: Path
) -> None:
    """The registry offers nothing anew: what changed is on the device."""
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0"), unsafe_format=True))
    settle(device, probation_s=0, keep_free_mb=0)
    with resident(device):
        wait_until(lambda: device.state.refusal is not None, "a refusal")
        refusal = device.state.refusal
        assert refusal is not None
        assert refusal.reason == Reason.UNSAFE_FORMAT
        asked = len(registry.requests)
        wait_until(lambda: len(registry.requests) > asked + 3, "polls")
        device.config_path.write_text(
            "allow_unsafe_formats = true\n" + device.config_path.read_text()
        )
        wait_until(lambda: device.state.refusal is None, "an order that is followed")
        assert device.state.orders["detector"].version == "1.0.0"

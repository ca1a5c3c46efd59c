"""What was gone back to fails as well: on to the last version ever healthy, and said so."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_agent.settings.config import ProbeSettings
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import ModelState, Reason
from tests.peers.device import Device
from tests.peers.registry import Registry, example

S = ModelState


def probe(*bad: str) -> ProbeSettings:
    """Say no to these versions."""
    words = f"case $PILOTWAVE_VERSION in {'|'.join(bad) or 'none'}) exit 1;; esac"
    return ProbeSettings("exec", ("sh", "-c", words), interval_s=0.1, failures=1)


@pytest.fixture
def versions(registry: Registry, device: Device) -> list[Entry]:
    """Three versions; the first two ran here and were healthy, one after the other."""
    made = [registry.publish("detector", f"1.{n}.0", example(f"1.{n % 2}.0")) for n in range(4)]
    for entry in made[:2]:
        registry.order(entry)
        device.work(refresh=True)
        assert device.slot().state is S.HEALTHY
    return made


def test_the_previous_one_fails_as_well(
    registry: Registry, device: Device, versions: list[Entry]
) -> None:
    device.set(probe=probe("1.1.0", "1.2.0"))
    registry.order(versions[2])
    done = device.work(refresh=True)
    slot = device.slot()
    assert (slot.state, slot.current and slot.current.version) == (S.ROLLED_BACK, "1.0.0"), done
    assert device.current().startswith("1.0.0-")
    back = [e for e in device.state.events if e.kind == "rolled_back"]
    assert [e.version for e in back] == ["1.2.0", "1.1.0"]
    assert "what was gone back to fails as well" in str(back[1].detail)
    assert back[1].detail
    assert back[1].detail.startswith("1.1.0 to 1.0.0")
    assert {f.sha256 for f in slot.failures} == {versions[1].sha256, versions[2].sha256}
    # neither is tried again until an operator says so
    registry.order(versions[1])
    device.work()
    assert device.current().startswith("1.0.0-")
    device.set(probe=probe())
    registry.order(versions[1], attempt=1)
    device.work(refresh=True)
    assert device.current().startswith("1.1.0-")
    assert device.slot().state is S.HEALTHY


def test_a_third_failure_stays_where_it_is_and_says_that(
    registry: Registry, device: Device, versions: list[Entry]
) -> None:
    device.set(probe=probe("1.*"))
    registry.order(versions[2])
    device.work(refresh=True)
    slot = device.slot()
    assert slot.state is S.ROLLED_BACK
    assert slot.current
    assert slot.current.version == "1.0.0"
    assert slot.watch is None


def test_the_previous_one_is_well_and_the_older_one_stays_at_hand(
    registry: Registry, device: Device, versions: list[Entry]
) -> None:
    device.set(probe=probe("1.2.0"))
    registry.order(versions[2])
    device.work(refresh=True)
    slot = device.slot()
    assert (slot.state, slot.reason) == (S.ROLLED_BACK, Reason.PROBE_FAILED)
    assert slot.current
    assert slot.current.version == "1.1.0"
    assert slot.watch is None
    assert slot.previous
    assert slot.previous.version == "1.0.0"


def test_a_version_that_proved_itself_needs_no_older_one(
    registry: Registry, device: Device, versions: list[Entry]
) -> None:
    registry.order(versions[2])
    device.work(refresh=True)
    assert device.slot().older is None
    folders = sorted(Path(p).name[:5] for p in device.layout.versions("detector").iterdir())
    assert folders == ["1.1.0", "1.2.0"]

"""A disk that is really full, and one that is really read-only, at each step of an update.

The data folder lies on a small file system of its own. Whatever cannot be written, the version that
runs is untouched, the reason is told, and the agent goes on when there is room again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotwave_agent.work import Job, work
from pilotwave_protocol.states import ModelState, Reason
from tests.agent.resident import log_of, resident, run_agent, settle, wait_until
from tests.peers.device import Device, make_device
from tests.peers.registry import Registry, example
from tests.peers.small_disk import SmallDisk, own_mounts

pytestmark = pytest.mark.long

BLOCK = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if not own_mounts():
        pytest.skip("this kernel lets nobody but root mount a file system here")
    made = SmallDisk(tmp_path / "small" / "cam-1", 2)
    yield made
    made.unmount()


@pytest.fixture
def device(registry: Registry, disk: SmallDisk) -> Device:
    """A device on the small disk that runs 1.0.0 and is told to run 1.1.0."""
    made = make_device(registry, disk.folder)
    registry.order(registry.publish("detector", "1.0.0", example("1.0.0")))
    settle(made, probation_s=0, keep_free_mb=0)
    done = run_agent("once", "--config", str(made.config_path))
    assert (done.returncode, done.stderr) == (0, "")
    registry.order(registry.publish("detector", "1.1.0", example("1.1.0")))
    return made


def runs(device: Device, version: str) -> bool:
    """Say whether the link, the journal and the files agree on a version."""
    slot = device.slot()
    folder = device.layout.versions("detector") / device.current()
    whole = (folder / "model.onnx").read_bytes() == example(version)["model.onnx"]
    return whole and bool(slot.current and slot.current.version == version)


def told(registry: Registry) -> set[str]:
    """Return the reasons in the newest check-in: of its models, and of its last refusal."""
    if not registry.check_ins:
        return set()
    last = registry.check_ins[-1]
    refusal = [str(last.refusal["reason"])] if last.refusal else []
    return {str(m.reason) for m in last.models if m.reason} | set(refusal)


def test_wherever_the_room_ends_the_running_version_stays_and_the_rest_comes_later(
    registry: Registry, device: Device, disk: SmallDisk
) -> None:
    """Each try has one block more, until the whole update fits: so it ends in each step once."""
    steps = []
    for blocks in range(200):
        device.deliver()
        disk.fill(leave=blocks * BLOCK)
        done = work(device.config, Job(token="token", refresh=True, boot=True))
        disk.empty()
        if runs(device, "1.1.0"):
            break
        steps.append((device.slot().state, done.retry))
        assert runs(device, "1.0.0")
        assert done.retry == Reason.DISK_FULL, (blocks, done)
        assert "No space left" in done.sentence or "free" in done.sentence, done.sentence
    else:
        raise AssertionError("it never fitted")
    # it ended before anything was known, and while it fetched
    assert {state for state, _ in steps} >= {ModelState.HEALTHY, ModelState.FETCHING}
    assert device.work(refresh=True).retry is None
    assert device.slot().state is ModelState.HEALTHY


@pytest.mark.parametrize("leave", [0, BLOCK])
def test_a_resident_agent_starts_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    registry: Registry, device: Device, disk: SmallDisk, leave: int
) -> None:
    disk.fill(leave=leave)
    seen = len(registry.check_ins)
    with resident(device) as agent:
        wait_until(lambda: Reason.DISK_FULL in told(registry), "disk_full reported")
        assert len(registry.check_ins) > seen
        assert runs(device, "1.0.0")
        assert agent.poll() is None
        disk.empty()
        wait_until(lambda: runs(device, "1.1.0"), log_of(device).read_text())
        wait_until(lambda: not told(registry), "an end of the trouble")


def test_a_resident_agent_starts_on_a_read_only_disk_says_so_and_goes_on_when_it_is_writable(
    registry: Registry, device: Device, disk: SmallDisk, tmp_path: Path
) -> None:
    disk.read_only()
    with resident(device, log=tmp_path / "agent.log") as agent:
        wait_until(lambda: Reason.DISK_READONLY in told(registry), "disk_readonly reported")
        assert runs(device, "1.0.0")
        assert agent.poll() is None
        disk.read_only(False)
        wait_until(lambda: runs(device, "1.1.0"), "1.1.0")
        wait_until(lambda: not told(registry), "an end of the trouble")


@pytest.mark.parametrize("command", [("once",), ("rollback", "--model", "detector")])
def test_commands_on_a_read_only_disk_say_so_in_a_sentence(
    device: Device, disk: SmallDisk, command: tuple[str, ...]
) -> None:
    disk.read_only()
    done = run_agent(*command, "--config", str(device.config_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Read-only file system" in done.stderr or "no earlier version" in done.stderr
    assert "runs 1.0.0" in run_agent("status", "--config", str(device.config_path)).stdout
    assert runs(device, "1.0.0")

"""A model is taken off the device by order: the application first, and nothing is left of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotwave_agent.core.journal import read_state
from pilotwave_agent.settings.tell import Tell
from pilotwave_protocol.messages.directive import SMALL_ENTRIES, Directive, Entry, parse_directive
from pilotwave_protocol.states import ModelState, Reason
from tests.peers.device import Device, device, registry
from tests.peers.registry import Registry, example

__all__ = ["device", "registry"]
MODEL = "detector"


def remove(registry: Registry, *models: str, keep: tuple[Entry, ...] = ()) -> None:
    registry.seq += 1
    registry.etag += 1
    registry.directive = registry.sign_directive(keep, remove=models)


@pytest.fixture
def running(registry: Registry, device: Device) -> Entry:
    entry = registry.publish(MODEL, "1.0.0", example("1.0.0"))
    registry.order(entry)
    device.work(refresh=True)
    assert device.slot().state is ModelState.HEALTHY
    return entry


def left(device: Device) -> list[str]:
    root = device.layout.root
    folders = [*(root / "models").glob("*"), *(root / "blobs").glob("*")]
    return [str(p.relative_to(root)) for p in folders]


def test_a_model_is_removed_with_all_its_files(
    registry: Registry, device: Device, running: Entry, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    script = f'echo "$PILOTWAVE_STATE $(readlink "$PILOTWAVE_PATH/../../current")" > {seen}'
    device.set(tell=(Tell("exec", command=("sh", "-c", script)),))
    other = registry.publish("other", "1.0.0", example("1.0.0"))
    registry.order(running, other)
    device.work(refresh=True)
    remove(registry, MODEL, keep=(other,))
    device.work(refresh=True)
    assert seen.read_text().startswith("removed versions/1.0.0-")  # told while it was all there
    assert set(device.state.models) == {"other"}
    assert device.slot("other").state is ModelState.HEALTHY
    assert [p.name for p in (device.layout.models).iterdir()] == ["other"]
    told = [e for e in device.state.events if e.kind == "removed"]
    assert [(e.model, e.version) for e in told] == [(MODEL, "1.0.0")]
    remove(registry, MODEL, "other")
    device.work(refresh=True)
    assert left(device) == []
    assert not device.state.leaving


def test_a_removed_model_can_be_assigned_again(
    registry: Registry, device: Device, running: Entry
) -> None:
    for _ in range(2):
        remove(registry, MODEL)
        device.work(refresh=True)
        assert not device.state.models
        registry.order(running)
        device.work(refresh=True)
        assert device.current().startswith("1.0.0-")
        assert device.slot().state is ModelState.HEALTHY


def test_yanks_and_floors_outlive_the_model(
    registry: Registry, device: Device, running: Entry
) -> None:
    new = registry.publish(MODEL, "1.1.0", example("1.1.0"))
    registry.yank(MODEL, "1.0.0")
    registry.order(new)
    device.work(refresh=True)
    remove(registry, MODEL)
    device.work(refresh=True)
    assert not device.state.models
    assert device.state.memory.has_yanked(MODEL, running.sha256)
    registry.order(running)
    device.work(refresh=True)
    assert device.state.refusal is not None
    assert device.state.refusal.reason == Reason.YANKED
    assert not device.slot().current


def test_a_model_that_is_only_absent_stays(
    registry: Registry, device: Device, running: Entry
) -> None:
    registry.order()
    device.work(refresh=True)
    assert device.current().startswith("1.0.0-")


def test_a_candidate_on_its_way_is_dropped_first(
    registry: Registry, device: Device, running: Entry
) -> None:
    new = registry.publish(MODEL, "1.1.0", example("1.1.0"))
    registry.order(new)
    device.work(token="")  # the files do not come
    assert device.slot().state is ModelState.FETCHING
    remove(registry, MODEL)
    device.work(refresh=True)
    assert not device.state.models
    assert left(device) == []


def test_models_that_were_never_installed_and_are_ordered_no_more_are_forgotten(
    registry: Registry, device: Device
) -> None:
    entries = [registry.publish(f"m{n}", "1.0.0", example("1.0.0")) for n in range(3)]
    registry.order(*entries)
    device.work(token="", refresh=True)
    assert len(device.state.models) == 3
    registry.order()
    device.work(refresh=True)
    assert not read_state(device.layout.journal).models
    assert not [e for e in device.state.events if e.kind == "removed"]


def test_a_directive_without_removals_is_what_older_agents_read(registry: Registry) -> None:
    given = {"fleet": "acme", "device": "cam-1", "seq": 1, "min_snapshot": 1, "entries": ()}
    plain = Directive(issued=registry.now, expires=registry.now, **given)
    assert b"remove" not in plain.to_bytes()
    full = Directive(issued=registry.now, expires=registry.now, remove=("b", "a"), **given)
    assert parse_directive(full.to_bytes()).remove == ("a", "b")
    assert full.set_digest != plain.set_digest
    assert SMALL_ENTRIES == 64


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_model_mb": 1}, "max_model_mb allows 1 MB"),
        ({"max_models_mb": 1}, "max_models_mb allows 1 MB"),
    ],
)
def test_a_budget_holds_what_would_fill_the_disk(
    registry: Registry, device: Device, running: Entry, settings: dict[str, int], words: str
) -> None:
    device.set(**settings)
    files = {**example("1.1.0"), "large.bin": b"x" * (2 << 20)}
    new = registry.publish(MODEL, "1.1.0", files)
    registry.order(new)
    device.work(refresh=True)
    slot = device.slot()
    assert (slot.state, slot.reason) == (ModelState.FETCHING, Reason.OVER_BUDGET)
    assert words in (slot.detail or "")
    assert device.current().startswith("1.0.0-")
    device.set(**dict.fromkeys(settings, 8))
    device.work(refresh=True)
    assert device.current().startswith("1.1.0-")

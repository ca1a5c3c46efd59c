"""A device that is asked to compare variants measures them, says so, and runs what it ran."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilotwave_agent.core import records
from pilotwave_agent.core.compare import MOST_TRIES
from pilotwave_agent.core.journal import Journal, read_state
from pilotwave_agent.core.state import DeviceState, Measured
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_agent.settings.config import Config
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.figures import COMPARE, MEASURED, VariantFigures, read_figures
from pilotwave_protocol.manifest import FileEntry, Variant, parse_manifest
from pilotwave_protocol.states import ModelState as S
from tests.agent.killing import work_until
from tests.forking import Forker, forker
from tests.peers.device import Device
from tests.peers.registry import VARIANT, Registry

PROGRAM: dict[str, Any] = {
    "runtime": "command",
    "entrypoint": "run",
    "cases": None,
    "unsafe_format": True,
}
ALL = [VARIANT, "fast", "broken"]
KILLS = 10


def program(name: str, p05_ms: float, status: int = 0) -> dict[str, bytes]:
    said = f'{{"cases": 1, "p05_ms": {p05_ms}, "p50_ms": 9}}'
    script = f"#!/bin/sh\n# {name}\necho '{said}'\nexit {status}\n"
    return {"run": script.encode(), "weights.bin": name.encode() * 400}


def publish(registry: Registry, version: str = "1.0.0") -> None:
    """Publish a version with three variants, the last of which fails its self-test."""
    more = {"fast": program(f"fast {version}", 1.5), "broken": program(f"broken {version}", 1, 1)}

    def with_more(raw: bytes) -> bytes:
        manifest = parse_manifest(raw)
        variants = tuple(
            Variant(
                name,
                "command",
                "run",
                tuple(FileEntry(p, len(b), sha256_hex(b)) for p, b in files.items()),
                unsafe_format=True,
            )
            for name, files in more.items()
        )
        return replace(manifest, variants=(*manifest.variants, *variants)).to_bytes()

    registry.publish("detector", version, program(version, 3.0), written=with_more, **PROGRAM)
    for files in more.values():
        registry.files |= {f"/blobs/{sha256_hex(data)}": data for data in files.values()}


def order(
    registry: Registry, variants: list[str], *, of: str = "c1", variant: str = VARIANT, **more: Any
) -> None:
    conditions = {COMPARE: {"of": of, "variants": variants}, **more}
    entry = registry.versions["detector", "1.0.0"]
    registry.order(replace(entry, variant=variant, conditions=conditions))


def told(state: DeviceState) -> dict[str, VariantFigures]:
    events = [e for e in state.events if e.kind == MEASURED]
    return dict(found for e in events if (found := read_figures(e.detail)) is not None)


@pytest.fixture
def ready(registry: Registry, device: Device) -> Device:
    device.set(allow_unsafe_formats=True)
    publish(registry)
    return device


EXPECTED = {
    VARIANT: (3.0, None),
    "fast": (1.5, None),
    "broken": (None, "selftest_error"),
}


def short(state: DeviceState) -> dict[str, tuple[float | None, str | None]]:
    return {name: (f.p05_ms, f.failed) for name, f in told(state).items()}


def test_what_is_measured_is_told_once_and_cleared_away(registry: Registry, ready: Device) -> None:
    order(registry, ALL)
    ready.work(refresh=True)
    assert short(ready.state) == EXPECTED
    slot = ready.slot()
    assert slot.state is S.HEALTHY
    assert slot.current
    assert slot.current.variant == VARIANT
    assert len(list((ready.layout.models / "detector" / "versions").iterdir())) == 1
    before = ready.state.next_event
    ready.work(refresh=True)
    assert ready.state.next_event == before


def test_another_class_is_another_comparison(registry: Registry, ready: Device) -> None:
    order(registry, ALL)
    ready.work(refresh=True)
    order(registry, ["fast"], of="c2")
    ready.work()
    events = [e for e in ready.state.events if e.kind == MEASURED]
    assert len(events) == len(ALL) + 1


def test_the_winner_is_switched_to_within_the_version(registry: Registry, ready: Device) -> None:
    order(registry, ALL)
    ready.work(refresh=True)
    registry.order(replace(registry.versions["detector", "1.0.0"], variant="fast"))
    ready.work()
    slot = ready.slot()
    assert slot.state is S.HEALTHY
    assert slot.current
    assert slot.previous
    assert (slot.current.variant, slot.previous.variant) == ("fast", VARIANT)
    assert slot.current.version == slot.previous.version


def test_a_variant_that_fails_leaves_the_one_before_in_use(
    registry: Registry, ready: Device
) -> None:
    order(registry, ALL)
    ready.work(refresh=True)
    registry.order(replace(registry.versions["detector", "1.0.0"], variant="broken"))
    ready.work()
    slot = ready.slot()
    assert slot.state is S.FAILED
    assert slot.current
    assert slot.current.variant == VARIANT


def test_the_others_are_measured_where_the_first_fails(registry: Registry, ready: Device) -> None:
    order(registry, ["broken", "fast"], variant="broken")
    ready.work(refresh=True)
    assert ready.slot().state is S.FAILED
    assert short(ready.state) == {name: EXPECTED[name] for name in ("broken", "fast")}


def test_a_comparison_waits_for_what_its_order_waits_for(registry: Registry, ready: Device) -> None:
    order(registry, [VARIANT])
    ready.work(refresh=True)
    order(registry, ALL, of="c2", disk_free_mb=99_000_000)
    done = ready.work()
    assert set(told(ready.state)) == {VARIANT}
    assert done.next_wake_s


def test_a_file_that_cannot_be_had_is_no_news_of_a_variant(
    registry: Registry, ready: Device
) -> None:
    gone = sha256_hex(b"fast 1.0.0" * 400)
    data = registry.files.pop(f"/blobs/{gone}")
    order(registry, ALL)
    ready.work(refresh=True)
    assert told(ready.state) == {}
    assert ready.slot().state is S.HEALTHY
    assert ready.slot().reason is None
    registry.files[f"/blobs/{gone}"] = data
    ready.work()
    assert short(ready.state) == EXPECTED


@pytest.fixture(scope="module")
def victims() -> Iterator[Forker]:
    with forker("pilotwave_agent.work", "tests.agent.killing") as made:
        yield made


def state_of(config: Config) -> DeviceState:
    return read_state(Layout(config.data_dir).journal)


def copy_of(device: Device, folder: Path) -> Config:
    shutil.copytree(device.config.data_dir, folder, symlinks=True)
    return replace(device.config, data_dir=folder)


def test_a_kill_at_any_step_of_a_comparison_is_made_good(
    registry: Registry, ready: Device, victims: Forker, tmp_path: Path
) -> None:
    registry.order(registry.versions["detector", "1.0.0"])
    ready.work(refresh=True)
    order(registry, ALL)
    ready.deliver()
    whole = work_until(victims, copy_of(ready, tmp_path / "whole"))
    deaths = [(n, n in whole.writes) for n in range(1, whole.changes + 1)]
    # each comparison starts three programs: a sample of the steps, from the first to the last
    for step, torn in [*deaths[:: max(len(deaths) // KILLS, 1)], deaths[-1]]:
        config = copy_of(ready, tmp_path / f"{step}{torn}")
        assert work_until(victims, config, dies_at=step, torn=torn).killed
        assert not work_until(victims, config).killed
        state = state_of(config)
        assert short(state) == EXPECTED
        assert len([e for e in state.events if e.kind == MEASURED]) == len(ALL)
        assert state.slot("detector").state is S.HEALTHY
        shutil.rmtree(config.data_dir)


def test_what_takes_the_device_down_again_and_again_is_given_up(
    registry: Registry, ready: Device
) -> None:
    registry.order(registry.versions["detector", "1.0.0"])
    ready.work(refresh=True)
    sha256 = registry.versions["detector", "1.0.0"].sha256
    known = Measured(sha256, "c1", MOST_TRIES)
    Journal(Disk(), ready.layout.journal).append(records.measuring("detector", known, at=1.0))
    order(registry, ALL)
    ready.work()
    assert {f.failed for f in told(ready.state).values()} == {"selftest_crash"}

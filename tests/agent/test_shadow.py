"""A candidate in shadow is fetched, tested and kept beside what serves; nothing is switched."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from pilotwave_agent import identity
from pilotwave_agent.apps import heartbeats
from pilotwave_agent.commands.rollback import rollback
from pilotwave_agent.commands.status import lines_of, status
from pilotwave_agent.resident.journal_watch import JournalWatch
from pilotwave_agent.resident.session import session_of
from pilotwave_protocol.states import ModelState as S
from pilotwave_protocol.states import Reason
from tests.agent.shadowed import (
    RULES,
    TRIED,
    is_forgotten,
    is_tried,
    link,
    order,
    publish,
    ready,
    running,
    told,
    tried,
)
from tests.peers.device import Device
from tests.peers.registry import Registry

__all__ = ["ready", "tried"]


def kinds(device: Device, version: str = "1.1.0") -> list[str]:
    return [e.kind for e in device.state.events if e.version == version]


# --- into shadow, and out of it


def test_it_is_fetched_tested_and_kept_and_nothing_is_switched(tried: Device) -> None:
    assert kinds(tried) == ["fetching", "staged", "tested", "shadowing"]


def test_a_later_order_in_earnest_switches_to_it_and_fetches_nothing(
    registry: Registry, tried: Device
) -> None:
    before = len(registry.requests)
    order(registry, "1.1.0")
    tried.work()
    assert running(tried.slot()) == (S.HEALTHY, "1.1.0")
    assert not [r for r in registry.requests[before:] if "/blobs/" in r or "/links/" in r]
    assert kinds(tried).count("tested") == 1
    assert kinds(tried)[-3:] == ["shadow_ended", "switched", "healthy"]
    assert not link(tried).is_symlink()
    assert not told(tried).exists()


@pytest.mark.parametrize("how", ["names what runs", "is gone"])
def test_when_its_order_ends_it_is_forgotten(registry: Registry, tried: Device, how: str) -> None:
    if how == "is gone":
        registry.order()
    else:
        order(registry, "1.0.0")
    tried.work()
    assert running(tried.slot()) == (S.HEALTHY, "1.0.0")
    is_forgotten(tried)
    assert kinds(tried)[-1] == "shadow_ended"
    assert {e.kind for e in tried.state.events} & {"rolled_back", "failed"} == set()


def test_other_numbers_are_told_without_a_new_test(registry: Registry, tried: Device) -> None:
    order(registry, "1.1.0", shadow={**RULES, "share": 0.5})
    tried.work()
    assert is_tried(tried)
    assert json.loads(told(tried).read_bytes())["share"] == 0.5
    assert kinds(tried).count("tested") == 1


def test_another_version_takes_its_place(registry: Registry, tried: Device) -> None:
    publish(registry, "1.2.0")
    order(registry, "1.2.0", **TRIED)
    tried.work(refresh=True)
    assert is_tried(tried, "1.2.0")
    kept = sorted(name[:5] for name in os.listdir(tried.layout.versions("detector")))
    assert kept == ["1.0.0", "1.2.0"]


def test_one_that_fails_its_test_is_not_tried(registry: Registry, ready: Device) -> None:
    publish(registry, "1.2.0", status=1)
    order(registry, "1.2.0", **TRIED)
    ready.work(refresh=True)
    assert running(ready.slot()) == (S.FAILED, "1.0.0")
    assert not link(ready).is_symlink()


def test_a_window_holds_the_switch_of_what_was_in_shadow(registry: Registry, tried: Device) -> None:
    order(registry, "1.1.0", windows=[{"cron": "0 0 29 2 *", "duration_s": 60}])
    tried.work()
    slot = tried.slot()
    assert (slot.state, slot.reason) == (S.TESTING, Reason.WAITING_WINDOW)
    assert tried.current().startswith("1.0.0")
    order(registry, "1.1.0")
    tried.work()
    assert running(tried.slot()) == (S.HEALTHY, "1.1.0")
    assert kinds(tried).count("tested") == 1


# --- what cannot be tried waits, and says why


def test_a_first_version_has_nothing_to_run_beside(registry: Registry, device: Device) -> None:
    device.set(allow_unsafe_formats=True)
    publish(registry, "1.1.0")
    order(registry, "1.1.0", **TRIED)
    device.work(refresh=True, boot=True)
    slot = device.slot()
    assert (slot.current, slot.reason) == (None, Reason.WAITING_CONDITION)
    assert slot.detail is not None
    assert "no version of detector runs here yet" in slot.detail
    assert not [r for r in registry.requests if "/blobs/" in r]


def test_a_tied_model_is_not_tried_in_shadow(registry: Registry, ready: Device) -> None:
    other = publish(registry, "1.0.0", model="small")
    new = replace(
        registry.versions["detector", "1.1.0"], conditions={**TRIED, "together": ["small"]}
    )
    registry.order(new, other)
    ready.work(refresh=True)
    slot = ready.slot()
    assert (running(slot), slot.reason) == ((S.FETCHING, "1.0.0"), Reason.WAITING_CONDITION)
    assert slot.detail is not None
    assert "changes together with small" in slot.detail
    # the other one waits for it, as it would for any that is held
    assert ready.slot("small").reason == Reason.WAITING_TOGETHER


@pytest.mark.parametrize("value", ["5%", {"share": 2, "cpu": 0.1, "min_calls": 1}, None])
def test_what_cannot_be_read_holds(registry: Registry, ready: Device, value: object) -> None:
    order(registry, "1.1.0", shadow=value)
    ready.work(refresh=True)
    slot = ready.slot()
    assert (running(slot), slot.reason) == ((S.FETCHING, "1.0.0"), Reason.WAITING_CONDITION)
    assert slot.detail is not None
    assert "the condition shadow cannot be read" in slot.detail


def test_an_older_version_is_tried_too_and_is_no_way_back(
    registry: Registry, ready: Device
) -> None:
    order(registry, "1.1.0")
    ready.work(refresh=True)
    order(registry, "1.0.0", **TRIED)
    ready.work()
    assert is_tried(ready, "1.0.0", beside="1.1.0")


# --- what comes in between


def test_a_candidate_that_is_yanked_is_dropped(registry: Registry, tried: Device) -> None:
    registry.yank("detector", "1.1.0")
    tried.work(refresh=True)
    slot = tried.slot()
    assert (running(slot), slot.reason) == ((S.FAILED, "1.0.0"), Reason.YANKED)
    is_forgotten(tried)


def test_what_runs_is_yanked_and_nothing_is_tried_beside_it(
    registry: Registry, tried: Device
) -> None:
    registry.yank("detector", "1.0.0")
    tried.work(refresh=True)
    slot = tried.slot()
    assert (running(slot), slot.reason) == ((S.FAILED, "1.0.0"), Reason.YANKED)
    assert not link(tried).is_symlink()
    order(registry, "1.1.0")  # in earnest it is taken
    tried.work()
    assert running(tried.slot()) == (S.HEALTHY, "1.1.0")


def test_a_pin_on_another_version_ends_it(registry: Registry, tried: Device) -> None:
    publish(registry, "1.2.0")
    registry.order(replace(registry.versions["detector", "1.2.0"], reason="pin"))
    tried.work(refresh=True)
    assert running(tried.slot()) == (S.HEALTHY, "1.2.0")
    is_forgotten(tried)


def test_a_rollback_at_the_device_ends_it_and_goes_back(registry: Registry, ready: Device) -> None:
    publish(registry, "1.2.0")
    order(registry, "1.1.0")
    ready.work(refresh=True)
    order(registry, "1.2.0", **TRIED)
    ready.work()
    assert is_tried(ready, "1.2.0", beside="1.1.0")
    assert rollback(ready.config, "detector") == "detector: 1.1.0 to 1.0.0"
    assert ready.current().startswith("1.0.0")
    assert kinds(ready, "1.2.0").count("shadow_ended") == 1


def test_a_model_in_shadow_is_taken_off_whole(registry: Registry, tried: Device) -> None:
    registry.seq += 1
    registry.directive = registry.sign_directive((), remove=("detector",))
    tried.work()
    assert not tried.state.models
    assert not told(tried).exists()
    assert [*tried.layout.models.iterdir(), *tried.layout.blobs.iterdir()] == []


def test_its_variants_are_not_compared_meanwhile(registry: Registry, ready: Device) -> None:
    asked = {"compare": {"of": "c1", "variants": [registry.versions["detector", "1.1.0"].variant]}}
    order(registry, "1.1.0", **TRIED, **asked)
    ready.work(refresh=True)
    assert is_tried(ready)
    assert "measured" not in kinds(ready)
    order(registry, "1.1.0", **asked)
    ready.work()
    assert running(ready.slot()) == (S.HEALTHY, "1.1.0")
    assert "measured" in kinds(ready)


# --- what people and the server are told


def test_status_says_it_in_plain_words(registry: Registry, tried: Device) -> None:
    lines = list(lines_of(status(tried.config)))
    assert "detector: runs 1.0.0 (onnx-fp32)" in lines
    (said,) = [line for line in lines if "1.1.0" in line]
    assert said.startswith("  tries 1.1.0 (onnx-fp32) in shadow for ")
    assert said.endswith(
        "it answers nobody, sees 5 % of the inputs and takes at most 10 % of a core"
    )
    assert "  not compared: no application runs here that could try it" in lines
    publish(registry, "1.2.0")
    order(registry, "1.2.0", **TRIED, disk_free_mb=99_000_000)
    tried.work(refresh=True)
    assert "  ordered: 1.2.0, to be tried in shadow" in lines_of(status(tried.config))


def test_the_log_says_it_in_plain_words(
    registry: Registry, tried: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = JournalWatch(tried.layout.journal)
    order(registry, "1.0.0")
    tried.work()
    watch.state()
    assert "detector 1.1.0: is in shadow no more" in capsys.readouterr().err


def test_a_check_in_names_the_state_the_candidate_and_the_ability(
    registry: Registry, tried: Device
) -> None:
    session = session_of(tried.config, identity.load(tried.layout))
    with closing(session):
        assert session.check_in(tried.state)
    report = registry.check_ins[-1]
    (model,) = report.models
    assert (model.state, model.candidate) == (S.SHADOWING, tried.slot().candidate)
    assert model.current == tried.slot().current
    assert report.facts is not None
    assert report.facts["shadows"] is True
    assert "shadowing" in [event.kind for event in report.events]


# --- what a start finds


@pytest.mark.parametrize("lost", ["link", "file", "both", "wrong"])
def test_a_start_shows_the_shadow_again(tried: Device, lost: str) -> None:
    if lost != "file":
        link(tried).unlink()
    if lost != "link":
        told(tried).unlink()
    if lost == "wrong":
        link(tried).symlink_to(f"versions/{tried.current()}")
        told(tried).write_text("{}")
    tried.work(boot=True)
    assert is_tried(tried)


def test_a_start_removes_what_is_left_of_a_shadow(ready: Device) -> None:
    link(ready).symlink_to("versions/gone")
    told(ready).write_text("{}")
    ready.work(boot=True)
    is_forgotten(ready)


def test_a_start_finds_the_candidate_damaged_and_brings_it_anew(
    registry: Registry, tried: Device
) -> None:
    path = link(tried).resolve() / "weights.bin"
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    tried.work(boot=True)
    assert is_tried(tried)
    assert kinds(tried).count("shadowing") == 2
    assert "damaged on disk" in str([e.detail for e in tried.state.events if e.kind == "failed"])


def test_the_file_stays_however_long_the_shadow_lasts(tried: Device) -> None:
    old = time.time() - 10 * 86_400
    os.utime(told(tried), (old, old))
    heartbeats.tidy(tried.layout.live, "detector")
    assert is_tried(tried)


def test_what_others_put_in_place_of_the_file_is_replaced(tried: Device, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    told(tried).unlink()
    told(tried).symlink_to(secret)
    tried.work()
    assert is_tried(tried)
    assert not told(tried).is_symlink()
    assert secret.read_text() == "mine"

"""A device adapts a version to itself: signed by the publisher, allowed by the owner, better."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent import overlays
from pilotwave_agent.adapt.adapt_models import adapt_models
from pilotwave_agent.adapting import Adapter
from pilotwave_agent.commands.once import once
from pilotwave_agent.commands.overlay import NoOverlay, drop_overlay, overlays_of
from pilotwave_agent.commands.status import lines_of, status
from pilotwave_agent.facts import facts_of
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.learning import signed_plans
from pilotwave_agent.live.labels import Labels
from pilotwave_agent.net.http import Channel
from pilotwave_agent.rounds import Rounds, tell_applications, waits
from pilotwave_agent.settings import config as settings
from pilotwave_agent.settings.config import BadConfig
from pilotwave_agent.settings.learn import LearnSettings
from pilotwave_protocol import signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.device_plan import DevicePlan
from pilotwave_protocol.learning.plan import Base
from pilotwave_protocol.manifest import TensorSpec
from tests.agent.learning.asking import AskingRegistry
from tests.agent.mortal import Dies, Mortal
from tests.peers.device import Device
from tests.protocol.learning.field import factory_model, golden_cases, seen
from tests.protocol.learning.plans import DEVICE

pytestmark = [pytest.mark.timeout(300), pytest.mark.long]
INPUTS = (TensorSpec("x", "float32", (-1, 8)),)
ADAPT = LearnSettings(allow=True, adapt=True, idle=False)


@pytest.fixture
def running(device: Device, registry: AskingRegistry) -> Device:
    """A device that runs the factory's version and may adapt it."""
    device.set(learn=ADAPT, metered=False)
    publish(device, registry, "1.0.0")
    tell_applications(device.config, device.layout, Disk())
    return device


def publish(device: Device, registry: AskingRegistry, version: str) -> None:
    files = {"model.onnx": factory_model(), "selftest.safetensors": golden_cases()}
    registry.order(registry.publish("detector", version, files, inputs=INPUTS))
    device.work(refresh=True)
    assert (device.slot().current.version, str(device.slot().state)) == (version, "healthy")


def sign(device: Device, registry: AskingRegistry, **changes: Any) -> DevicePlan:
    """Have the publisher stand by a plan, and the device learn of it."""
    entry = registry.versions["detector", "1.0.0"]
    soon = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1)
    base = Base("1.0.0", entry.sha256, entry.variant)
    plan = replace(DEVICE, **{"base": base, "deadline": soon, **changes})
    hold(registry, {plan.plan: sha256_hex(plan.to_bytes())})
    registry.plans[sha256_hex(plan.to_bytes())] = plan.to_bytes()
    device.work(refresh=True)
    fetch(device)
    return plan


def hold(registry: AskingRegistry, plans: dict[str, str]) -> None:
    policy = signing.policy_of(registry.roles["models-detector"].signed, "detector")
    registry.amend(
        "detector",
        lambda role: signing.set_policy(role, "detector", replace(policy, plans=plans)),
    )


def fetch(device: Device) -> None:
    channel = Channel(device.config.server)
    try:
        Adapter(device.config, device.config_path, Disk()).fetch_plans(channel, "token")
    finally:
        channel.close()


def label(device: Device, count: int, seed: int, *, wrong: bool = False) -> None:
    """Label calls as an application does, and have the agent take them."""
    labels = Labels(device.layout.live / "detector")
    x, y = seen(count, seed)
    for row, c in zip(x, y * (not wrong), strict=True):
        assert labels.keep({"x": row[None]}, int(c))
    Rounds(device.config, device.config_path, Disk()).collect()


def adapt(device: Device, disk: Disk | None = None, *, may: bool = True) -> None:
    adapt_models(device.config, device.layout, disk or Disk(), may=may)


def linked(device: Device) -> str:
    path = device.layout.models / "detector" / "overlay"
    return path.readlink().name if path.is_symlink() else ""


def test_a_signed_plan_and_labels_make_an_overlay_and_nothing_is_sent(
    running: Device, registry: AskingRegistry
) -> None:
    sign(running, registry)
    label(running, 90, 2)
    before = len(registry.requests)
    adapt(running)
    assert len(registry.requests) == before
    found = overlays.in_use(Disk(), running.layout, "detector")
    assert found is not None
    assert linked(running) == f"{found.digest}.overlay"
    assert found.is_for("detector", running.slot().current.sha256, "onnx-fp32")
    assert (found.examples, found.held_out) == (60, 30)
    assert float(found.gain) > 0.02
    assert float(found.distance) <= 6
    assert facts_of(running.config)["overlays"] == "detector"
    assert any("more often" in line for line in lines_of(status(running.config)))
    # the version's own files are what was signed
    assert {p.name for p in (running.layout.models / "detector" / "current").iterdir()} == {
        "model.onnx",
        "selftest.safetensors",
    }
    # nothing new: nothing to do
    assert (
        overlays.work_for(Disk(), running.layout, running.slot(), datetime.now(timezone.utc))
        is None
    )


@pytest.mark.parametrize(
    ("learn", "changes", "labels", "says"),
    [
        (LearnSettings(allow=True, idle=False), {}, 90, None),
        (ADAPT, {"deadline": datetime(2026, 1, 1, tzinfo=timezone.utc)}, 90, None),
        (ADAPT, {"base": Base("1.0.0", "c" * 64, "onnx-fp32")}, 90, None),
        (ADAPT, {}, 59, None),
        (ADAPT, {"golden": "1"}, 90, "keep their class; the plan asks for a share of 1"),
        (ADAPT, {"least_gain": "0.9"}, 90, "the plan asks for 0.9"),
        (ADAPT, {"distance": "0.01"}, 90, "show a gain of"),
        (ADAPT, {"embedding": "hidden"}, 90, "the plan asks for an output hidden"),
    ],
    ids=["owner", "over", "other version", "too few", "golden", "gain", "short", "no output"],
)  # fmt: skip
def test_what_may_not_be_adapted_is_not(
    running: Device, registry: AskingRegistry,
    learn: LearnSettings, changes: dict[str, Any], labels: int, says: str | None,
) -> None:  # fmt: skip
    running.set(learn=learn)
    sign(running, registry, **changes)
    label(running, labels, 2)
    adapt(running)
    assert linked(running) == ""
    details = [row["detail"] for row in overlays_of(running.config)]
    assert details == [] if says is None else says in details[0]
    # what was tried is not tried again
    adapt(running)
    state = overlays.read(Disk(), running.layout, "detector")
    assert (state.tries if state else 0) == (says is not None)


def test_a_plan_that_nobody_signed_or_that_came_changed_is_not_kept(
    running: Device, registry: AskingRegistry
) -> None:
    plan = sign(running, registry)
    shutil.rmtree(running.layout.plans)
    registry.plans = {sha256_hex(plan.to_bytes()): replace(plan, distance="1000").to_bytes()}
    fetch(running)
    assert not running.layout.plans.exists()
    # and one that was put there by somebody else
    Disk().make_dirs(running.layout.plans)
    other = replace(plan, distance="1000").to_bytes()
    (running.layout.plans / sha256_hex(other)).write_bytes(other)
    label(running, 90, 2)
    adapt(running)
    assert linked(running) == ""


@pytest.mark.parametrize("why", ["version", "plan", "over", "owner", "yanked", "changed"])
def test_an_overlay_goes_when_what_it_stands_on_goes(
    running: Device, registry: AskingRegistry, why: str
) -> None:
    soon = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=25)
    sign(running, registry, **({"deadline": soon} if why == "over" else {}))
    label(running, 90, 2)
    adapt(running)
    assert linked(running)
    if why == "version":
        publish(running, registry, "1.1.0")
    elif why == "plan":
        hold(registry, {})
        running.work(refresh=True)
    elif why == "over":
        time.sleep(max((soon - datetime.now(timezone.utc)).total_seconds() + 0.1, 0))
        adapt(running, may=False)  # neither power nor leisure is asked for
    elif why == "owner":
        running.set(learn=LearnSettings(allow=True))
        running.work()
    elif why == "yanked":
        registry.yank("detector", "1.0.0")
        running.work(refresh=True)
    else:
        path = running.layout.overlays("detector") / linked(running)
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        running.work()
    assert linked(running) == ""
    assert Disk().names(running.layout.overlays("detector")) == []
    assert "overlays" not in facts_of(running.config)


def test_later_labels_take_an_overlay_back_and_its_examples_count_no_more(
    running: Device, registry: AskingRegistry
) -> None:
    sign(running, registry)
    label(running, 90, 2)
    adapt(running)
    first = linked(running)
    label(running, 10, 3)
    adapt(running)
    assert linked(running) == first  # good labels leave it
    label(running, 60, 4, wrong=True)
    adapt(running)
    assert linked(running) == ""
    (row,) = overlays_of(running.config)
    assert "later labels" in row["detail"]
    label(running, 59, 5)
    adapt(running)
    assert linked(running) == ""
    label(running, 61, 6)
    adapt(running)
    found = overlays.in_use(Disk(), running.layout, "detector")
    assert found is not None
    assert found.examples + found.held_out == 120


def test_the_owner_takes_it_back_by_hand(running: Device, registry: AskingRegistry) -> None:
    sign(running, registry)
    label(running, 90, 2)
    with pytest.raises(NoOverlay):
        drop_overlay(running.config, "detector")
    adapt(running)
    assert "own answers" in drop_overlay(running.config, "detector")
    assert linked(running) == ""
    adapt(running)
    assert linked(running) == ""


def test_a_device_that_dies_at_any_change_has_the_last_overlay_the_next_or_none(
    running: Device, registry: AskingRegistry, tmp_path: Path
) -> None:
    """Each run dies one change later, and the next one comes to the same end as an unharmed one."""
    sign(running, registry)
    label(running, 90, 2)
    died = 0
    for left in range(60):
        for path in (running.layout.all_adapting, running.layout.overlays("detector")):
            shutil.rmtree(path, ignore_errors=True)
        (running.layout.models / "detector" / "overlay").unlink(missing_ok=True)
        try:
            adapt(running, Mortal(left))
            lived = True
        except Dies:
            died, lived = died + 1, False
            name = linked(running)
            assert name == "" or overlays.in_use(Disk(), running.layout, "detector"), left
            running.work(boot=True)
            adapt(running)
        found = overlays.in_use(Disk(), running.layout, "detector")
        assert found is not None, left
        assert Disk().names(running.layout.overlays("detector")) == [linked(running)]
        if lived:
            break
    assert 8 < died < 59


def test_a_drop_that_dies_at_any_change_is_finished(
    running: Device, registry: AskingRegistry, tmp_path: Path
) -> None:
    sign(running, registry)
    label(running, 90, 2)
    adapt(running)
    kept = tmp_path / "kept"
    shutil.copytree(running.layout.root, kept, symlinks=True)
    hold(registry, {})
    died = 0
    for left in range(40):
        state, disk = running.state, Mortal(left)
        signed_plans.note(Disk(), running.layout, {})
        try:
            overlays.review(running.config, disk, running.layout, state, time.time())
            lived = True
        except Dies:
            died, lived = died + 1, False
            overlays.review(running.config, Disk(), running.layout, state, time.time())
        assert (linked(running), Disk().names(running.layout.overlays("detector"))) == ("", [])
        if lived:
            break
        for name in ("learning", "models/detector/overlays", "models/detector/overlay"):
            place = running.layout.root / name
            if place.is_symlink():
                place.unlink()
            shutil.rmtree(place, ignore_errors=True)
            if (kept / name).is_symlink():
                place.symlink_to((kept / name).readlink())
            else:
                shutil.copytree(kept / name, place, symlinks=True)
    assert 3 < died < 39


def test_nothing_of_an_overlay_is_in_what_the_device_sends(
    running: Device, registry: AskingRegistry
) -> None:
    sign(running, registry)
    label(running, 90, 2)
    adapt(running)
    path = running.layout.overlays("detector") / linked(running)
    numbers = path.read_bytes().partition(b"\n")[2]
    running.work()
    once(running.config, running.config_path)
    said = b"".join([*registry.bodies, *map(payload, registry.bodies)])
    assert np.frombuffer(numbers, "<f4").any()
    assert numbers[:64] not in said
    assert base64.b64encode(numbers)[:64] not in said
    assert path.name.removesuffix(".overlay").encode() not in said
    assert b'"overlays":"detector"' in said  # that there is one is all that is said


def payload(body: bytes) -> bytes:
    """What an envelope holds."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return base64.b64decode(json.loads(body)["payload"])
    return b""


def test_a_clock_that_ran_ahead_stops_nothing(running: Device, registry: AskingRegistry) -> None:
    sign(running, registry)
    label(running, 90, 2)
    kept = running.layout.examples("detector")
    ahead = min(kept.iterdir())
    for n in range(5):
        shutil.copy(ahead, kept / f"99{n}{ahead.name[3:]}")
    adapt(running)
    found = overlays.read(Disk(), running.layout, "detector")
    assert found is not None
    assert found.overlay
    assert found.until < "99"
    # what the clock had marked while it was ahead
    marks = dict.fromkeys(("until", "judged", "trained"), "99")
    overlays.decide(Disk(), running.layout, "detector", replace(found, **marks))
    running.work()
    label(running, 60, 4, wrong=True)
    adapt(running)
    assert linked(running) == ""


def test_it_waits_for_power_and_leisure_and_for_no_network(running: Device) -> None:
    nowhere = Path("/nowhere")
    running.set(metered=True)
    assert "unmetered" in waits(running.config, 0.0, nowhere)
    assert waits(running.config, 0.0, nowhere, sends=False) == ""
    running.set(learn=LearnSettings(allow=True, adapt=True))
    (running.config.data_dir / "busy").touch()
    assert "idle" in waits(running.config, 0.0, nowhere, sends=False)


def test_an_owner_who_keeps_no_examples_cannot_have_them_learnt_from(running: Device) -> None:
    path = running.config_path
    path.write_text(path.read_text() + "\n[learn]\nadapt = true\n")
    with pytest.raises(BadConfig, match="allow = true beside it"):
        settings.load(path)
    path.write_text(path.read_text() + "allow = true\n")
    assert settings.load(path).learn.adapt


def test_a_plan_that_did_not_come_is_not_asked_for_all_the_time(
    running: Device, registry: AskingRegistry
) -> None:
    hold(registry, {"here-1": "d" * 64})
    running.work(refresh=True)
    channel = Channel(running.config.server)
    asked = f"/device/v1/plans/{'d' * 64}"
    try:
        adapter = Adapter(running.config, running.config_path, Disk())
        for _ in range(3):
            adapter.fetch_plans(channel, "token")
    finally:
        channel.close()
    assert sum(asked in request for request in registry.requests) == 1

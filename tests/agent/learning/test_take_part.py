"""A device takes part in what its model's publisher signed and its owner allows, and once."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotwave_agent import rounds
from pilotwave_agent.host.disk import Disk
from pilotwave_agent.identity import load
from pilotwave_agent.live.labels import FILE, Labels
from pilotwave_agent.net.http import Channel
from pilotwave_agent.rounds import Rounds, tell_applications, waits
from pilotwave_agent.settings.learn import LearnSettings
from pilotwave_agent.take_part.answer_rounds import take_part
from pilotwave_agent.take_part.device import Device as Part
from pilotwave_protocol import dsse, signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.decline import DECLINE_TYPE, Why, parse_decline
from pilotwave_protocol.learning.plan import Base, TrainingPlan
from pilotwave_protocol.learning.statistics import Statistics
from pilotwave_protocol.learning.update import UPDATE_TYPE, Update, parse_update, split_update
from pilotwave_protocol.manifest import TensorSpec
from tests.agent.learning.asking import AskingRegistry
from tests.agent.mortal import Dies, Mortal
from tests.peers.device import Device
from tests.protocol.learning.models import any_classifier
from tests.protocol.learning.plans import RIDGE

INPUTS = (TensorSpec("x", "float32", (-1, 4)),)
VARIANT = "onnx-fp32"


@pytest.fixture
def running(device: Device, registry: AskingRegistry) -> Device:
    """A device that runs a version whose embedding is among its outputs, and may learn."""
    device.set(learn=LearnSettings(allow=True, idle=False), metered=False)
    registry.order(
        registry.publish("detector", "1.0.0", {"model.onnx": any_classifier()}, inputs=INPUTS)
    )
    device.work()
    slot = device.slot()
    assert str(slot.state) == "healthy"
    tell_applications(device.config, device.layout, Disk())
    return device


def plan_of(registry: AskingRegistry, **changes: Any) -> TrainingPlan:
    entry = registry.versions["detector", "1.0.0"]
    soon = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1)
    base = Base("1.0.0", entry.sha256, entry.variant)
    return replace(RIDGE, **{"base": base, "deadline": soon, **changes})


def sign(registry: AskingRegistry, plan: TrainingPlan) -> None:
    """Have the publisher stand by a plan."""
    policy = signing.policy_of(registry.roles["models-detector"].signed, "detector")
    named = {plan.plan: sha256_hex(plan.to_bytes())}
    registry.amend(
        "detector",
        lambda role: signing.set_policy(role, "detector", replace(policy, plans=named)),
    )


def leave(device: Device, count: int, source: str = "") -> None:
    """Label calls as an application does, and have the agent take them."""
    labels = Labels(device.layout.live / "detector")
    random = np.random.default_rng(count)
    for n in range(count):
        assert labels.keep({"x": random.random((1, 4)).astype(np.float32)}, n % 3, source)
    Rounds(device.config, device.config_path, Disk()).collect()


def ask_for_part(device: Device, registry: AskingRegistry) -> TrainingPlan:
    """Have the registry ask for a plan's round, and the device have examples for it."""
    plan = plan_of(registry)
    sign(registry, plan)
    registry.waiting = [plan.to_bytes()]
    leave(device, 30)
    return plan


def part(device: Device, disk: Disk | None = None) -> None:
    channel = Channel(device.config.server)
    try:
        who = load(device.layout)
        take_part(Part(device.config, device.layout, who, disk or Disk(), channel, "token"))
    finally:
        channel.close()


def sent(registry: AskingRegistry, number: int = 0) -> tuple[Update, bytes]:
    envelope, numbers = split_update(registry.updates[number])
    assert registry.device_key is not None
    key = {dsse.keyid(registry.device_key): registry.device_key}
    payload = dsse.open_envelope(envelope, payload_type=UPDATE_TYPE, keys=key, max_bytes=1 << 16)
    return parse_update(payload), numbers


def test_a_signed_plan_is_answered_once_with_sums_of_the_examples(
    running: Device, registry: AskingRegistry
) -> None:
    plan = ask_for_part(running, registry)
    part(running)
    update, numbers = sent(registry)
    assert (update.device, update.examples, update.round) == (running.layout.root.name, 30, 1)
    assert (update.plan, update.numbers) == (sha256_hex(plan.to_bytes()), sha256_hex(numbers))
    found = Statistics.from_bytes(numbers, features=plan.features, classes=plan.classes)
    assert found.cross[-1].tolist() == [10, 10, 10]
    # asked again, also by a server that has lost it, with examples that are new: nothing
    leave(running, 5)
    part(running)
    assert len(registry.updates) == 1


def test_what_the_server_did_not_keep_is_sent_again_byte_for_byte(
    running: Device, registry: AskingRegistry
) -> None:
    plan = plan_of(registry)
    sign(registry, plan)
    registry.waiting, registry.refuses = [plan.to_bytes()], True
    leave(running, 30)
    part(running)
    leave(running, 5)
    registry.refuses = False
    part(running)
    assert registry.updates[0] == registry.updates[1]


def test_a_device_that_dies_at_any_change_sends_one_update_in_the_end(
    running: Device, registry: AskingRegistry
) -> None:
    plan = ask_for_part(running, registry)
    died = 0
    for left in range(60):
        shutil.rmtree(running.layout.updates, ignore_errors=True)
        registry.updates.clear()
        try:
            part(running, Mortal(left))
            lived = True
        except Dies:
            died, lived = died + 1, False
            part(running)
        assert len(set(registry.updates)) == 1, left
        assert sent(registry)[0].examples == 30
        (marker,) = running.layout.updates.iterdir()
        assert marker.name == f"{sha256_hex(plan.to_bytes())}-1{rounds.SENT}"
        if lived:
            break
    assert 5 < died < 59


def declined(registry: AskingRegistry) -> list[tuple[Why, int | None]]:
    assert registry.device_key is not None
    key = {dsse.keyid(registry.device_key): registry.device_key}
    how: Any = {"payload_type": DECLINE_TYPE, "keys": key, "max_bytes": 1 << 16}
    said = [parse_decline(dsse.open_envelope(raw, **how)) for raw in registry.declines]
    assert {one.plan for one in said} <= {sha256_hex(plan) for plan in registry.waiting}
    return [(one.why, one.examples) for one in said]


@pytest.mark.parametrize(
    ("changes", "signed", "words", "why"),
    [
        ({}, False, "stands by no such plan", Why.PLAN_NOT_BELIEVED),
        ({"deadline": datetime(2026, 1, 1, tzinfo=timezone.utc)}, True, "is over", Why.OVER),
        (
            {"base": Base("1.0.0", "c" * 64, VARIANT)},
            True,
            "not based on a version that may run",
            Why.OTHER_VERSION,
        ),
        (
            {"least_examples": 31},
            True,
            "asks for 31 labelled examples; here are 30",
            Why.TOO_FEW_EXAMPLES,
        ),
        ({"embedding": "hidden"}, True, "the plan asks for hidden", Why.CHILD_FAILED),
    ],
    ids=["unsigned", "over", "other version", "too few", "no such output"],
)
def test_what_may_not_be_answered_is_not(
    running: Device, registry: AskingRegistry, capfd: pytest.CaptureFixture[str],
    changes: dict[str, Any], signed: bool, words: str, why: Why,
) -> None:  # fmt: skip
    plan = plan_of(registry, **changes)
    if signed:
        sign(registry, plan)
    registry.waiting = [plan.to_bytes()]
    leave(running, 30)
    part(running)
    assert registry.updates == []
    out = capfd.readouterr()
    assert words in out.out + out.err
    # the server hears one word of it, once, however often it asks
    part(running)
    assert declined(registry) == [(why, 20 if why is Why.TOO_FEW_EXAMPLES else None)]


def test_a_plan_that_was_changed_on_its_way_is_not_answered(
    running: Device, registry: AskingRegistry
) -> None:
    plan = plan_of(registry)
    sign(registry, plan)
    registry.waiting = [replace(plan, most_examples=1001).to_bytes(), b"{}", b""]
    leave(running, 30)
    part(running)
    assert registry.updates == []


def test_without_the_owners_word_nothing_is_kept_and_what_was_goes(running: Device) -> None:
    leave(running, 30)
    assert len(list(running.layout.examples("detector").iterdir())) == 30
    running.set(learn=LearnSettings())
    tell_applications(running.config, running.layout, Disk())
    assert not running.layout.all_examples.exists()
    assert not (running.layout.live / FILE).exists()
    labels = Labels(running.layout.live / "detector")
    assert labels.copied({"x": np.ones(4)}) is None
    assert not labels.keep({"x": np.ones(4, np.float32)}, 1)


def test_examples_are_held_to_the_owners_budget(running: Device) -> None:
    running.set(learn=LearnSettings(allow=True, max_mb=1, max_example_kb=300))
    tell_applications(running.config, running.layout, Disk())
    labels, agent = (
        Labels(running.layout.live / "detector"),
        Rounds(running.config, running.config_path, Disk()),
    )
    assert not labels.keep({"x": np.ones(100_000, np.float32)}, 0)
    for _ in range(8):
        assert labels.keep({"x": np.ones(60_000, np.float32)}, 0)
        agent.collect()
    kept = sorted(path.name for path in running.layout.examples("detector").iterdir())
    assert len(kept) == 4


def test_a_metered_network_or_one_that_cannot_tell_waits(running: Device) -> None:
    assert waits(running.config, 0.0, Path("/nowhere")) == ""
    running.set(metered=True)
    assert "unmetered" in waits(running.config, 0.0, Path("/nowhere"))
    running.set(metered=None)
    assert "unmetered" in waits(running.config, 0.0, Path("/nowhere"))
    running.set(metered=False, learn=LearnSettings(allow=True))
    (running.config.data_dir / "busy").touch()
    assert "idle" in waits(running.config, 0.0, Path("/nowhere"))


def test_damaged_examples_are_passed_over(running: Device, registry: AskingRegistry) -> None:
    plan = plan_of(registry)
    sign(registry, plan)
    registry.waiting = [plan.to_bytes()]
    leave(running, 25)
    kept = running.layout.examples("detector")
    for n, raw in enumerate([b"", b"no tensors", json.dumps({}).encode() * 9]):
        (kept / f"9{n}.example").write_bytes(raw)
    part(running)
    assert sent(registry)[0].examples == 25
    assert rounds.SENT in "".join(path.name for path in running.layout.updates.iterdir())


@pytest.mark.parametrize(
    "conditions",
    [
        {"windows": [{"cron": "0 0 29 2 *", "duration_s": 60, "timezone": "UTC"}]},
        {"idle": True},
        {"power": "wind"},
        {"a condition of later": 1},
    ],
    ids=["window", "idle", "unreadable", "unknown"],
)
def test_what_the_server_says_to_wait_for_holds_until_it_is_met(
    running: Device, registry: AskingRegistry, conditions: dict[str, Any]
) -> None:
    plan = plan_of(registry)
    sign(registry, plan)
    registry.waiting, registry.conditions = [plan.to_bytes()], conditions
    (running.config.data_dir / "busy").touch()
    leave(running, 30)
    part(running)
    assert registry.updates == []
    registry.conditions = {}
    part(running)
    assert len(registry.updates) == 1


def test_what_the_server_says_takes_nothing_from_what_the_owner_asks_for(running: Device) -> None:
    running.set(metered=True)
    for conditions in ({}, {"network": None}, {"network": "any"}, {"idle": False}):
        assert "unmetered" in waits(running.config, 0.0, Path("/nowhere"), conditions)
    running.set(metered=False, learn=LearnSettings(allow=True))
    (running.config.data_dir / "busy").touch()
    assert "idle" in waits(running.config, 0.0, Path("/nowhere"), {"idle": False})


def test_another_reason_is_told_and_the_update_still_sent_once_it_can_be(
    running: Device, registry: AskingRegistry
) -> None:
    plan = plan_of(registry)
    sign(registry, plan)
    registry.waiting = [plan.to_bytes()]
    for more in (0, 3, 4, 20):  # 0, 3, 7 and 27 in all
        leave(running, more)
        part(running)
    few = Why.TOO_FEW_EXAMPLES
    assert declined(registry) == [(few, 0), (few, 1), (few, 5)]
    assert sent(registry)[0].examples == 27

"""A device takes part in the rounds of a plan: each once, from the head that it may go on from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning import noise
from pilotwave_protocol.learning.plan import Aggregate, Noise, StartHead, TrainingPlan
from pilotwave_protocol.learning.statistics import read_numbers, write_numbers
from tests.agent.learning.asking import AskingRegistry
from tests.agent.learning.test_take_part import leave, part, plan_of, running, sent, sign
from tests.peers.device import Device
from tests.protocol.learning.plans import SGD

__all__ = ["running"]
HEAD = np.random.default_rng(3).normal(size=(7, 3)) / 3


def sgd_plan(registry: AskingRegistry, **changes: object) -> TrainingPlan:
    """Have the publisher stand by a plan of gradient steps, and the registry open its round 1."""
    raw = write_numbers(HEAD)
    known = plan_of(registry)
    head = StartHead(sha256_hex(raw), f"{np.linalg.norm(HEAD):.6g}")
    plan = replace(SGD, base=known.base, deadline=known.deadline, head=head, **changes)
    sign(registry, plan)
    registry.waiting, registry.number, registry.head = [plan.to_bytes()], 1, raw
    return plan


def test_each_round_is_answered_once_with_a_change_of_its_head(
    running: Device, registry: AskingRegistry
) -> None:
    plan = sgd_plan(registry, clip="0.5", rounds=3)
    leave(running, 30)
    for number in (1, 2, 3):
        registry.number = number
        part(running)
        part(running)
        assert len(registry.updates) == number
        update, numbers = sent(registry, number - 1)
        assert (update.round, update.examples, update.size) == (number, 30, plan.update_bytes)
        change = read_numbers(numbers, 21)
        assert 0 < np.linalg.norm(change) <= 0.5 * 1.0001
        registry.head = write_numbers(HEAD + change.reshape(7, 3))
    registry.number = 4
    part(running)
    assert len(registry.updates) == 3


@pytest.mark.parametrize(
    ("number", "head", "words"),
    [
        # a server that gives out another head than the publisher's could ask what it likes of it
        (1, write_numbers(HEAD * 1.01), "not the one that was signed"),
        (2, write_numbers(HEAD * 1000), "expected a norm of at most"),
        (2, write_numbers(HEAD)[:-4], "expected 84 bytes"),
        (2, write_numbers(np.full((7, 3), np.nan)), "expected finite numbers"),
        (9, write_numbers(HEAD), "has 3 rounds, not 9"),
    ],
    ids=["another first one", "too far", "too short", "no numbers", "a round too many"],
)
def test_a_head_that_no_round_makes_is_not_gone_on_from(
    running: Device, registry: AskingRegistry, capfd: pytest.CaptureFixture[str],
    number: int, head: bytes, words: str,
) -> None:  # fmt: skip
    sgd_plan(registry, rounds=3)
    registry.number, registry.head = number, head
    leave(running, 30)
    part(running)
    assert registry.updates == []
    out = capfd.readouterr()
    assert words in out.out + out.err


def test_a_head_longer_than_the_plans_is_not_read_to_its_end(
    running: Device, registry: AskingRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = sgd_plan(registry)
    registry.number, registry.head = 2, bytes(plan.head_bytes + 1)
    leave(running, 30)
    with pytest.raises(Exception, match="expected at most 84 bytes"):
        part(running)
    assert registry.updates == []


def test_a_plan_with_noise_is_answered_with_this_devices_share(
    running: Device, registry: AskingRegistry
) -> None:
    promise = Noise("1", "1e-5")
    plan = sgd_plan(
        registry, rounds=4, clip="0.01", aggregate=Aggregate.MEAN, noise=promise, least_devices=3
    )
    leave(running, 30)
    found = []
    for number in (1, 2, 3, 4):
        registry.number = number
        part(running)
        found.append(read_numbers(sent(registry, number - 1)[1], 21))
    # 84 numbers, among which the change itself, at most 0.01 long, is not to be seen
    assert np.std(found) == pytest.approx(noise.share(plan), rel=0.3)

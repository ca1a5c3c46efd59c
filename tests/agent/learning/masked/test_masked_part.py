"""A device in a masked round: on disk before it is sent, the same again, and gone at the end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pilotwave_agent.commands.learn import forget
from pilotwave_agent.net.http import Unreachable
from pilotwave_agent.rounds import SENT
from pilotwave_agent.take_part.masked_files import NUMBERS, STATE
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.learning.masked.step import Step, Wants
from pilotwave_protocol.learning.plan import TrainingPlan
from pilotwave_protocol.learning.privacy import Mode, Privacy
from pilotwave_protocol.learning.statistics import Statistics
from tests.agent.learning.masked.masking import MaskingRegistry
from tests.agent.learning.test_take_part import leave, part, plan_of, running, sign
from tests.agent.mortal import Dies, Mortal
from tests.peers.device import Device, device

__all__ = ["device", "running"]


@pytest.fixture
def registry() -> Iterator[MaskingRegistry]:
    made = MaskingRegistry()
    yield made
    made.stop()


@pytest.fixture
def plan(running: Device, registry: MaskingRegistry) -> TrainingPlan:
    made = plan_of(registry, privacy=Privacy(Mode.MASKED, 5), most_examples=200)
    sign(registry, made)
    registry.begin(made)
    leave(running, 30)
    return made


def go_on(device: Device) -> None:
    """Take part, and once more where the line broke: on a busy machine an idle one is closed."""
    try:
        part(device)
    except Unreachable:
        part(device)


def files(device: Device) -> list[str]:
    return sorted(path.name for path in device.layout.updates.iterdir())


def marker(plan: TrainingPlan) -> str:
    return f"{sha256_hex(plan.to_bytes())}-1{SENT}"


def sums(registry: MaskingRegistry) -> Statistics:
    return Statistics.of(registry.sum_of_all(), features=6, classes=3)


def test_a_device_goes_through_a_whole_round(
    running: Device, registry: MaskingRegistry, plan: TrainingPlan
) -> None:
    part(running)
    kinds = (registry.keys, registry.shares, registry.inputs, registry.answers)
    assert [len(kind) for kind in kinds] == [1, 1, 1, 1]
    assert sums(registry).cross[-1].tolist() == [10, 10, 10]
    assert registry.updates == []
    assert files(running) == [marker(plan)]
    part(running)
    assert len(registry.answers) == 1


def test_a_device_that_dies_at_any_change_says_one_thing_in_each_step(
    running: Device, registry: MaskingRegistry, plan: TrainingPlan
) -> None:
    died = 0
    for left in range(80):
        shutil.rmtree(running.layout.updates, ignore_errors=True)
        registry.begin(plan)
        try:
            part(running, Mortal(left))
            lived = True
        except Dies:
            died, lived = died + 1, False
            go_on(running)
        except Unreachable:
            lived = False
            go_on(running)
        for kind in (registry.keys, registry.shares, registry.inputs, registry.answers):
            assert len(set(kind)) == 1, left
        assert sums(registry).cross[-1].tolist() == [10, 10, 10], left
        assert files(running) == [marker(plan)], left
        if lived:
            break
    assert 20 < died < 79


def test_what_the_server_did_not_keep_is_sent_again_byte_for_byte(
    running: Device, registry: MaskingRegistry, plan: TrainingPlan
) -> None:
    part(running)
    assert files(running) == [marker(plan)]
    registry.begin(plan)
    shutil.rmtree(running.layout.updates)
    registry.refuses = True
    part(running)
    state = next(n for n in files(running) if n.endswith(STATE))
    before = (running.layout.updates / state).read_bytes()
    leave(running, 5)
    registry.refuses = False
    part(running)
    assert registry.keys[0].hex() in before.decode()
    assert sums(registry).cross[-1].tolist() == [10, 10, 10]


def test_of_a_lost_group_the_same_numbers_go_into_one_other(
    running: Device, registry: MaskingRegistry, plan: TrainingPlan
) -> None:
    registry.lies = Step(Wants.WAIT)
    part(running)
    assert registry.keys == []
    registry.lies = None
    ask = registry.step
    registry.step = lambda: Step(Wants.WAIT) if registry.inputs else ask()  # type: ignore[method-assign]  # a slow group
    part(running)
    assert len(registry.inputs) == 1
    leave(running, 9)  # they are not in: the numbers of both groups are the same
    registry.shares.clear()
    registry.inputs.clear()
    registry.step = ask  # type: ignore[method-assign]  # and now it goes on
    registry.lose()
    part(running)
    assert registry.attempt == 2
    assert len(set(registry.keys)) == 2
    assert sums(registry).cross[-1].tolist() == [10, 10, 10]
    assert files(running) == [marker(plan)]


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_device_that_has_answered_joins_no_other_group(
    running: Device, registry: MaskingRegistry, plan: TrainingPlan, attempt: int
) -> None:
    ask = registry.step

    def forgetful() -> Step:
        registry.refuses = len(registry.inputs) == 1  # the answer never arrives
        return ask()

    registry.step = forgetful  # type: ignore[method-assign]  # a server that loses the answer
    part(running)
    registry.refuses = False
    assert any(name.endswith(STATE) for name in files(running))
    registry.lies = Step(Wants.LOST, attempt)
    part(running)
    assert len(registry.keys) == 1
    assert files(running) == [marker(plan)]


def test_a_server_that_asks_again_with_another_list_gets_nothing(
    running: Device, registry: MaskingRegistry, plan: TrainingPlan, capfd: Any
) -> None:
    ask = registry.step

    def forgetful() -> Step:
        registry.refuses = len(registry.inputs) == 1
        return ask()

    registry.step = forgetful  # type: ignore[method-assign]  # a server that says that it lost it
    part(running)
    registry.refuses = False
    assert registry.members is not None
    most = tuple(name for name in registry.members.names if name != "other-3")
    registry.lies = Step(Wants.ANSWER, 1, survivors=most)
    part(running)
    assert registry.answers == []
    assert "told before" in "".join(capfd.readouterr())
    registry.lies, registry.step = None, ask  # type: ignore[method-assign]  # and the first again
    part(running)
    assert sums(registry).cross[-1].tolist() == [10, 10, 10]


def test_a_state_of_a_plan_whose_time_is_over_goes(
    running: Device, registry: MaskingRegistry, plan: TrainingPlan
) -> None:
    ask = registry.step
    registry.step = lambda: Step(Wants.WAIT) if registry.keys else ask()  # type: ignore[method-assign]  # no group comes
    part(running)
    state = next(path for path in running.layout.updates.iterdir() if path.suffix == STATE)
    assert state.with_suffix(NUMBERS).exists()
    raw = state.read_text()
    state.write_text(raw.replace(str(plan.deadline.timestamp()), "1.0"))
    registry.waiting = []
    part(running)
    assert files(running) == [marker(plan)]
    assert np.isfinite(plan.deadline.timestamp())


def test_an_owner_who_has_examples_forgotten_takes_no_further_part(
    running: Device, registry: MaskingRegistry, plan: TrainingPlan
) -> None:
    ask = registry.step
    registry.step = lambda: Step(Wants.WAIT) if registry.inputs else ask()  # type: ignore[method-assign]  # a slow group
    part(running)
    assert "1 updates that were not sent yet" in forget(running.config, "detector")
    assert files(running) == [marker(plan)]
    registry.step = ask  # type: ignore[method-assign]  # and now it goes on
    part(running)
    assert registry.answers == []

"""Which examples count by where their labels come from; what owners see, and have forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from pilotwave_agent.commands.learn import forget, learning, lines_of_learning
from pilotwave_agent.live.labels import Labels
from pilotwave_agent.runtimes.casefile import as_safetensors
from tests.agent.learning.asking import AskingRegistry
from tests.agent.learning.test_take_part import (
    ask_for_part,
    leave,
    part,
    plan_of,
    running,
    sent,
    sign,
)
from tests.peers.device import Device

__all__ = ["running"]


def test_examples_count_whose_labels_come_from_where_the_plan_says(
    running: Device, registry: AskingRegistry, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(registry, label_sources=("operator", "sensor"))
    sign(registry, plan)
    registry.waiting = [plan.to_bytes()]
    leave(running, 21)
    leave(running, 22, "guess")
    leave(running, 15, "operator")
    part(running)
    out = capfd.readouterr()
    assert "20 labelled examples from operator or sensor; here are 15" in out.out + out.err
    assert registry.updates == []
    leave(running, 6, "sensor")
    part(running)
    assert sent(registry)[0].examples == 21


def test_a_plan_that_names_no_source_counts_all(running: Device, registry: AskingRegistry) -> None:
    plan = plan_of(registry)
    sign(registry, plan)
    registry.waiting = [plan.to_bytes()]
    leave(running, 21)
    leave(running, 22, "guess")
    part(running)
    assert sent(registry)[0].examples == 43


@pytest.mark.parametrize("about", [{"source": "Operator"}, {"source": ""}, {"other": "operator"}])
def test_an_example_from_nowhere_in_particular_does_not_count(
    running: Device, registry: AskingRegistry, about: dict[str, str]
) -> None:
    plan = plan_of(registry, label_sources=("operator",))
    sign(registry, plan)
    registry.waiting = [plan.to_bytes()]
    leave(running, 20, "operator")
    tensors = {"input.x": np.ones((1, 4), np.float32), "label": np.array([1])}
    (running.layout.examples("detector") / "9.example").write_bytes(
        as_safetensors(tensors, about=about)
    )
    part(running)
    assert sent(registry)[0].examples == 20


def test_a_source_that_is_no_name_is_refused(running: Device) -> None:
    labels = Labels(running.layout.live / "detector")
    with pytest.raises(ValueError, match="label source: expected"):
        labels.keep({"x": np.ones(4, np.float32)}, 1, "the operator")


def test_the_owner_sees_what_is_kept_and_answered_and_has_examples_forgotten(
    running: Device, registry: AskingRegistry
) -> None:
    ask_for_part(running, registry)
    part(running)
    found = learning(running.config)
    assert (found["allowed"], found["examples"]) == (True, {"detector": 30})
    assert found["answered"] == [{"model": "detector", "plan": "autumn-1", "rounds": 1}]
    assert list(lines_of_learning(found)) == [
        "detector: 30 labelled examples are kept",
        "detector: answered 1 round of the training plan autumn-1",
    ]
    assert forget(running.config, "detector") == "forgot 30 labelled examples of detector"
    found = learning(running.config)
    assert (found["examples"], len(found["answered"])) == ({}, 1)


def test_what_was_made_of_examples_that_are_forgotten_is_never_sent(
    running: Device, registry: AskingRegistry
) -> None:
    plan = plan_of(registry)
    sign(registry, plan)
    registry.waiting, registry.refuses = [plan.to_bytes()], True
    leave(running, 30)
    part(running)
    assert len(registry.updates) == 1
    assert forget(running.config, "other") == "forgot 0 labelled examples of other"
    words = "forgot 30 labelled examples of detector, and 1 updates that were not sent yet"
    assert forget(running.config, "detector") == words
    registry.refuses = False
    leave(running, 30)
    part(running)
    # a second answer to this round, of other examples, would tell of the first ones
    assert len(registry.updates) == 1

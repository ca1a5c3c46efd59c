"""The agent and an application together: what is in shadow is tried, reported, switched to."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pilotwave_agent import identity
from pilotwave_agent.commands.status import lines_of, status
from pilotwave_agent.live import LiveModel
from pilotwave_agent.resident.session import session_of
from pilotwave_protocol.messages.check_in import MetricReport
from pilotwave_protocol.shadow import DISAGREE, ERROR, SHADOW_METRICS
from pilotwave_protocol.states import ModelState as S
from tests.agent.live.test_shadow import children
from tests.peers.device import Device
from tests.peers.registry import Registry, example

PATIENCE_S = 120.0
ALL = {"shadow": {"share": 1.0, "cpu": 1.0, "min_calls": 1}}


def order(registry: Registry, version: str, **conditions: Any) -> None:
    registry.order(replace(registry.versions["detector", version], conditions=conditions))


@pytest.fixture
def ready(registry: Registry, device: Device) -> Device:
    for version in ("1.0.0", "1.1.0"):
        registry.publish("detector", version, example(version))
    order(registry, "1.0.0")
    device.work(refresh=True, boot=True)
    return device


@pytest.fixture
def application(ready: Device) -> Iterator[LiveModel]:
    options = {"app": "eye", "heartbeat_s": 0.2, "wait_s": PATIENCE_S}
    with LiveModel("detector", data=ready.config.data_dir, **options) as model:
        yield model


def answers_until(model: LiveModel, what: Callable[[], Any]) -> set[str]:
    """Call the model until something has come about; return the versions that answered."""
    feeds = {
        spec.name: np.ones([max(n, 1) for n in spec.shape], np.float32) for spec in model.inputs
    }
    answered, ends = set(), time.monotonic() + PATIENCE_S
    while True:
        answered.add(model.run(feeds).version.version)
        if what():
            return answered
        assert time.monotonic() < ends, "it did not come about"
        for pid in children():  # they run when nothing else wants a processor, and other tests do
            with contextlib.suppress(OSError):
                os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0))
                os.setpriority(os.PRIO_PROCESS, pid, 0)
        time.sleep(0.01)


def reported(registry: Registry, device: Device) -> dict[str, MetricReport]:
    """Check in, and return the windows of the version in shadow that the server has."""
    with closing(session_of(device.config, identity.load(device.layout))) as session:
        assert session.check_in(device.state)
    windows = [m for report in registry.check_ins for m in report.metrics]
    registry.acked_metric = max((m.id for m in windows), default=0)
    return {m.metric: m for m in windows if m.version == "1.1.0"}


def test_figures_of_a_pair_reach_the_server_and_the_switch_fetches_nothing(
    registry: Registry, ready: Device, application: LiveModel
) -> None:
    order(registry, "1.1.0", **ALL)
    ready.work(refresh=True)
    assert ready.slot().state is S.SHADOWING
    answered = answers_until(application, lambda: DISAGREE in reported(registry, ready))
    assert answered == {"1.0.0"}
    found = reported(registry, ready)
    assert set(found) & {DISAGREE, ERROR} == {DISAGREE, ERROR}
    assert set(found) <= SHADOW_METRICS
    assert found[ERROR].sketch.sum == 0
    fetched = len(registry.requests)
    order(registry, "1.1.0")
    ready.work()
    assert application.wait_for("1.1.0", PATIENCE_S)
    assert ready.slot().state is S.HEALTHY
    assert not [r for r in registry.requests[fetched:] if "/blobs/" in r]
    assert answers_until(application, lambda: not children()) == {"1.1.0"}


def test_the_server_and_status_are_told_what_keeps_a_version_from_being_compared(
    registry: Registry, ready: Device
) -> None:
    def said() -> str | None:
        reported(registry, ready)
        return registry.check_ins[-1].models[0].detail

    def shown() -> list[str]:
        return [line for line in lines_of(status(ready.config)) if "not compared" in line]

    def never(serving: Any, candidate: Any) -> bool:
        raise RuntimeError("no labels today")

    order(registry, "1.1.0", **ALL)
    ready.work(refresh=True)
    assert said() == "no application runs here that could try it"
    assert shown() == ["  not compared: no application runs here that could try it"]
    options = {"app": "eye", "heartbeat_s": 0.2, "wait_s": PATIENCE_S, "compare": never}
    with LiveModel("detector", data=ready.config.data_dir, **options) as model:
        words = "the application eye says: the application's compare: RuntimeError: no labels today"
        answers_until(model, lambda: said() == words)
        assert shown() == [f"  not compared: {words}"]
    order(registry, "1.0.0")
    ready.work()
    assert said() is None
    assert shown() == []


def test_a_shadow_that_is_forgotten_leaves_the_application_as_it_was(
    registry: Registry, ready: Device, application: LiveModel
) -> None:
    order(registry, "1.1.0", **ALL)
    ready.work(refresh=True)
    assert answers_until(application, children) == {"1.0.0"}
    order(registry, "1.0.0")
    ready.work()
    assert answers_until(application, lambda: not children()) == {"1.0.0"}
    assert application.version.version == "1.0.0"
    assert ready.slot().state is S.HEALTHY

"""No power cut, at any moment of the agent's replacement, starts an unproved agent uncounted, nor
costs the device an agent that works.

The old agent's work, then the new one's, is recorded in this process; `medium` says what a cut at
each moment may leave. The new agent is a program that passes its self-test: what it does is done
here, as both are this code.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from pilotwave_agent.core.journal import read_state
from pilotwave_agent.facts import agent_version
from pilotwave_agent.self_update import launch, slots
from pilotwave_agent.work import Job, work
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState
from tests.agent.powercut import Run, lay_out, moved_to, some
from tests.agent.recorder import Plain
from tests.peers.device import Device
from tests.peers.registry import Registry

pytestmark = pytest.mark.timeout(300)
PROGRAM = b"#!/bin/sh\necho '{}'\n"
PROVED = ("check_in", "directive", "poll")
ON_ITS_WAY = (ModelState.SWITCHING, ModelState.PROBATION)


def order(registry: Registry) -> None:
    words = {"runtime": "command", "entrypoint": "agent.sh", "unsafe_format": True}
    files = {"agent.sh": PROGRAM}
    registry.order(registry.publish(AGENT_MODEL, agent_version(), files, **words))  # type: ignore[arg-type]


def as_agent(patch: pytest.MonkeyPatch, name: str, wanted: str) -> None:
    patch.setenv(launch.SLOT, name)
    patch.setenv(launch.PYTHON, sys.executable)
    patch.setenv(launch.PASSED_OVER, wanted if wanted != name else "")


def start(device: Device, patch: pytest.MonkeyPatch) -> str:
    """Start what the launcher would, as far as this process can be it; return its name."""
    data = device.config.data_dir
    name, _ = launch.choose(data)
    name = next(n for n in launch.candidates(data, name) if launch.program_of(data, n, ["x"]))
    as_agent(patch, name, launch.named(data, "current"))
    return name


@pytest.fixture
def board(registry: Registry, device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    as_agent(monkeypatch, launch.INSTALLED, launch.INSTALLED)
    order(registry)
    return device


def record(device: Device, *, after: Run | None = None, proved: tuple[str, ...] = ()) -> Run:
    run = Run(device.config.data_dir, after=after)
    run.make_dirs(device.layout.inbox.parent)
    run.write_atomic(device.layout.inbox, device.registry.directive)
    job = Job(token="token", refresh=True, boot=True, proved=proved)
    work(device.config, job, disk=run)
    run.finish()
    return run


def comes_to_rest(device: Device, patch: pytest.MonkeyPatch) -> None:
    """See that starts lead to the new agent, proved, in a few steps."""
    for _ in range(6):
        start(device, patch)
        device.work(disk=Plain(), refresh=True, boot=True, proved=PROVED)
        if device.slot(AGENT_MODEL).state is ModelState.HEALTHY:
            break
    slot = device.slot(AGENT_MODEL)
    now = launch.named(device.config.data_dir, "current")
    assert (slot.state, slots.running()) == (ModelState.HEALTHY, now), (slot, device.state)
    assert not device.layout.trial.exists()


def test_whatever_a_cut_leaves_an_unproved_agent_is_never_started_uncounted(
    board: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    switching = record(board)
    assert slots.must_restart(board.config.data_dir)
    new = start(board, monkeypatch)
    assert new != launch.INSTALLED
    proving = record(board, after=switching, proved=PROVED)
    assert board.slot(AGENT_MODEL).state is ModelState.HEALTHY
    left = board.config.data_dir.parent / "left"
    seen = set()
    for run in (switching, proving):
        assert run.broken_promises() == []
        for tree in some(run.states, max(len(run.states) // 150, 1)):
            lay_out(tree, left)
            name = launch.named(left, "current")
            state = read_state(left / "journal" / "log").slot(AGENT_MODEL).state
            seen.add((state, name == new))
            if name == new and state is not ModelState.HEALTHY:
                trial = slots.trial_of(left, new)
                assert trial is not None, state
                assert trial.back == launch.INSTALLED
    assert {(ModelState.SWITCHING, True), (ModelState.HEALTHY, True)} <= seen


def test_from_whatever_a_cut_leaves_the_new_agent_comes_to_run(
    board: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    switching = record(board)
    start(board, monkeypatch)
    proving = record(board, after=switching, proved=PROVED)
    left = board.config.data_dir.parent / "left"
    for run in (switching, proving):
        for tree in some(run.states, max(len(run.states) // 10, 1)):
            lay_out(tree, left)
            comes_to_rest(moved_to(board, left), monkeypatch)


def test_from_whatever_a_cut_leaves_a_bad_agent_comes_to_be_taken_back(
    board: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one was started as often as it may be: the old one takes it back, once for all."""
    record(board)
    trial = launch.read_trial(board.config.data_dir)
    assert trial is not None
    launch.write_trial(board.config.data_dir, replace(trial, starts=launch.MOST_STARTS))
    assert start(board, monkeypatch) == launch.INSTALLED
    run = record(board)
    assert run.broken_promises() == []
    assert board.slot(AGENT_MODEL).state is ModelState.FAILED
    left = board.config.data_dir.parent / "left"
    for tree in some(run.states, max(len(run.states) // 20, 1)):
        lay_out(tree, left)
        there = moved_to(board, left)
        for _ in range(3):
            assert start(there, monkeypatch) == launch.INSTALLED
            there.work(disk=Plain(), refresh=True, boot=True, proved=PROVED)
        slot = there.slot(AGENT_MODEL)
        assert (slot.state, slot.current) == (ModelState.FAILED, None)
        assert "started 5 times" in (slot.detail or "")
        assert launch.named(left, "current") == launch.INSTALLED

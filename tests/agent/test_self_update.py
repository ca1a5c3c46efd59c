"""The agent replaces itself: a real launcher, real agents and wheels, a registry of the tests' own.

A stand-in for systemd starts the launcher again whenever what it started has ended.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from pilotwave_agent.self_update import launch
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.names import AGENT_MODEL
from pilotwave_protocol.states import ModelState, Reason
from tests.agent.resident import settle, wait_until
from tests.peers.device import Device
from tests.peers.registry import Registry, example
from tests.service import Service, service
from tests.wheelhouses import RUN, version_in, wheelhouse

pytestmark = [pytest.mark.timeout(240), pytest.mark.long]
PATIENCE_S = 120.0


def publish(registry: Registry, files: Mapping[str, bytes], version: str = "") -> Entry:
    return registry.publish(
        AGENT_MODEL,
        version or version_in(files),
        dict(files),
        runtime="wheelhouse",
        entrypoint="requirements.txt",
        unsafe_format=True,
    )


@pytest.fixture
def quick(device: Device) -> Device:
    """Its trials are short, so that one that fails does so in seconds."""
    settle(device, probation_s=1, self_update_timeout_s=20)
    return device


def until_state(device: Device, *states: ModelState) -> None:
    def there() -> bool:
        return device.slot(AGENT_MODEL).state in states

    wait_until(there, f"{states}", patience_s=PATIENCE_S)


def updated(
    registry: Registry, device: Device, running: Service, files: Mapping[str, bytes]
) -> Entry:
    """Order an agent, and see it become the one that runs."""
    entry = publish(registry, files)
    registry.order(entry)
    wait_until(
        lambda: (
            device.slot(AGENT_MODEL).last_healthy is not None
            and device.slot(AGENT_MODEL).last_healthy.version == entry.version
        ),
        f"{entry.version}: {device.slot(AGENT_MODEL)}",
        patience_s=PATIENCE_S,
    )
    assert running.slot().startswith(entry.version)
    return entry


def test_a_signed_version_replaces_the_agent_and_is_confirmed(
    registry: Registry, quick: Device
) -> None:
    with service(quick.config.data_dir) as running:
        wait_until(lambda: registry.check_ins, "a check-in")
        before = registry.check_ins[-1].agent
        updated(registry, quick, running, wheelhouse({RUN: "\n# another build\n"}))
        wait_until(lambda: not quick.layout.trial.exists(), "the trial's end")
        wait_until(lambda: registry.check_ins[-1].agent != before, "a check-in of the new agent")
        slot = quick.slot(AGENT_MODEL)
        assert slot.current
        assert registry.check_ins[-1].agent == slot.current.version
        # it does an agent's work, with a runtime that the installed one has: its own code lies in
        # the data folder, which a model under test may not look into
        registry.publish("detector", "1.0.0", example("1.0.0"))
        registry.order(*registry.versions.values())
        wait_until(lambda: quick.slot().state is ModelState.HEALTHY, "the detector")
    assert launch.named(quick.config.data_dir, "current").startswith(slot.current.version)


@pytest.mark.slow
def test_killed_at_each_step_of_its_journal_the_new_agent_comes_to_run_all_the_same(
    registry: Registry, device: Device
) -> None:
    settle(device, probation_s=5, self_update_timeout_s=60)
    entry = publish(registry, wheelhouse({RUN: "\n# another build\n"}))
    killed: list[tuple[ModelState, bool]] = []
    with service(device.config.data_dir) as running:
        wait_until(lambda: registry.check_ins, "a check-in")
        registry.order(entry)

        def healthy() -> bool:
            slot = device.slot(AGENT_MODEL)
            step = (slot.state, bool(slot.telling and slot.telling.told))
            if step not in killed:
                killed.append(step)
                running.kill()
            return slot.state is ModelState.HEALTHY

        wait_until(healthy, "the new agent", patience_s=PATIENCE_S)
        wait_until(lambda: running.slot().startswith(entry.version), "the new agent")
        wait_until(lambda: not device.layout.trial.exists(), "the trial's end")
    wanted = {(ModelState.TESTING, False), (ModelState.SWITCHING, True)}
    assert wanted | {(ModelState.PROBATION, False)} <= set(killed), killed


AS_SERVICE = "\nimport os\nif os.environ.get('PILOTWAVE_SLOT'):\n    "
MUTE = """
from pilotwave_agent.check_in.send import Reporter
from pilotwave_agent.net.http import Unreachable
def _mute(*_):
    raise Unreachable("it has lost its voice")
Reporter.send = _mute
"""

DIES_LATER = """
def _dies(self, turn=Agent.turn):
    from pilotwave_agent.self_update import slots
    trial = slots.trial_of(self._layout.root, slots.running())
    if trial and trial.taken:
        os._exit(7)
    turn(self)
Agent.turn = _dies
"""


@dataclass(frozen=True)
class Bad:
    """An agent with a fault: what is added to which file, and what comes of it."""

    name: str
    added: Mapping[str, str]
    reason: Reason
    sentence: str
    version: str = ""
    starts: bool = True


BAD = [
    # found before the switch: the self-test imports what the agent needs
    Bad(
        "cannot be imported",
        {RUN: "\nraise RuntimeError('left out a file')\n"},
        Reason.SELFTEST_ERROR,
        "left out a file",
        starts=False,
    ),
    # passes its self-test, and dies as a service each time: its starts are counted
    Bad(
        "dies as a service",
        {RUN: AS_SERVICE + "raise RuntimeError('boom')\n"},
        Reason.APP_REFUSED,
        "it was started 5 times and proved nothing",
    ),
    # hangs before it has said a word: the launcher's guard ends it
    Bad(
        "hangs as a service",
        {RUN: AS_SERVICE + "__import__('time').sleep(3600)\n"},
        Reason.APP_REFUSED,
        "it ran for 15 s and proved nothing",
    ),
    # lives, polls nothing, since it cannot check in: it takes itself back
    Bad(
        "cannot check in",
        {RUN: MUTE},
        Reason.APP_SILENT,
        "no check-in was accepted, no poll was answered: it has lost its voice",
    ),
    # lives and checks in, and could never follow an order again: the guard ends it
    Bad(
        "cannot work",
        {"pilotwave_agent/effects/carry_out.py": AS_SERVICE + "raise RuntimeError('no')\n"},
        Reason.APP_REFUSED,
        "it ran for 15 s and proved nothing",
    ),
    # proves itself, and dies after that each time: probation is part of the trial
    Bad(
        "dies in probation",
        {RUN: DIES_LATER},
        Reason.PROBE_FAILED,
        "it was started 5 times and ended each time",
    ),
    # is another version than was signed: whoever looks at the fleet would be misled
    Bad("is another version", {}, Reason.APP_REFUSED, "9.9.9 says that it is 0.1.0+", "9.9.9"),
]


# those that have to wait until their time is over
_WAIT = ("hangs as a service", "cannot work", "dies in probation")


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(bad, id=bad.name, marks=[pytest.mark.slow] if bad.name in _WAIT else [])
        for bad in BAD
    ],
)
def test_the_old_agent_is_back_by_itself_and_says_why(
    registry: Registry, device: Device, bad: Bad
) -> None:
    settle(device, probation_s=30, self_update_timeout_s=10)
    with service(device.config.data_dir) as running:
        wait_until(lambda: registry.check_ins, "a check-in")
        before = registry.check_ins[-1].agent
        registry.order(publish(registry, wheelhouse(bad.added), bad.version))
        until_state(device, ModelState.FAILED)
        slot = device.slot(AGENT_MODEL)
        assert (slot.reason, slot.current) == (bad.reason, None)
        assert bad.sentence in (slot.detail or "")
        wait_until(lambda: running.slot() == launch.INSTALLED, "the old agent")

        def told() -> bool:
            last = registry.check_ins[-1]
            models = [m for m in last.models if m.model == AGENT_MODEL]
            return bool(models) and models[0].state is ModelState.FAILED and last.agent == before

        wait_until(told, "the old agent's word of it")
        assert bad.sentence in (registry.check_ins[-1].models[0].detail or "")
        assert (len(running.ended) > 0) is bad.starts
        # it is not tried again by itself
        starts = len(running.ended)
        registry.order(*registry.versions.values())
        wait_until(lambda: device.state.memory.directive_seq == registry.seq, "the next order")
        assert device.slot(AGENT_MODEL).state is ModelState.FAILED
        assert len(running.ended) == starts
    assert not device.layout.trial.exists()
    assert launch.named(device.config.data_dir, "current") == launch.INSTALLED


DIES_WHEN_TOLD = """
def _dies(self, turn=Agent.turn):
    if self._layout.root.with_name("boom").exists():
        os._exit(7)
    turn(self)
Agent.turn = _dies
"""


def test_a_kept_version_that_begins_to_crash_later_is_taken_back(
    registry: Registry, quick: Device
) -> None:
    data = quick.config.data_dir
    with service(data) as running:
        first = updated(registry, quick, running, wheelhouse({RUN: "\n# another build\n"}))
        second = updated(registry, quick, running, wheelhouse({RUN: DIES_WHEN_TOLD}))

        def noted() -> bool:
            kept = launch.read_kept(data) or launch.Kept("", "")
            words = (kept.folder, kept.back)
            return words[0].startswith(second.version) and words[1].startswith(first.version)

        wait_until(noted, f"the note of it: {launch.read_kept(data)}")
        data.with_name("boom").touch()
        until_state(quick, ModelState.ROLLED_BACK)
        slot = quick.slot(AGENT_MODEL)
        assert slot.current
        assert (slot.current.version, slot.reason) == (first.version, Reason.PROBE_FAILED)
        assert "it ended 10 times within 60 minutes" in (slot.detail or "")
        wait_until(lambda: running.slot().startswith(first.version), "the version before")
        # it is not tried again by itself
        registry.order(second)
        wait_until(lambda: quick.state.memory.directive_seq == registry.seq, "the next order")
        kept_state = quick.slot(AGENT_MODEL)
        assert kept_state.current
        assert kept_state.current.version == first.version


def test_a_version_that_fails_leads_back_to_the_version_before(
    registry: Registry, quick: Device
) -> None:
    good = wheelhouse({RUN: "\n# another build\n"})
    bad = wheelhouse({RUN: AS_SERVICE + "raise RuntimeError('boom')\n"})
    with service(quick.config.data_dir) as running:
        first = updated(registry, quick, running, good)
        registry.order(publish(registry, bad))
        until_state(quick, ModelState.ROLLED_BACK)
        slot = quick.slot(AGENT_MODEL)
        assert slot.current
        assert slot.current.version == first.version
        assert "started 5 times" in (slot.detail or "")
        wait_until(lambda: running.slot().startswith(first.version), "the version before")
        # and forward again, to one that is well
        updated(registry, quick, running, wheelhouse({RUN: "\n# a third build\n"}))
        # an operator takes it off: the agent that was installed is still there
        registry.seq += 1
        registry.etag += 1
        registry.directive = registry.sign_directive((), remove=frozenset({AGENT_MODEL}))
        wait_until(lambda: running.slot() == launch.INSTALLED, "the installed agent")
        wait_until(lambda: not list(quick.layout.models.iterdir()), "a clean folder")


@pytest.mark.parametrize(
    ("spoil", "reason", "sentence"),
    [
        # another wheel than the list names, though both are signed
        (lambda pin: pin[:-2] + b"0\n", Reason.SELFTEST_LOAD, " Got "),
        (lambda pin: pin.replace(b"pilotwave==", b"tuf=="), Reason.SELFTEST_LOAD, "tuf=="),
        (lambda pin: b"--index-url http://x/\n" + pin, Reason.SELFTEST_FORMAT, "--index-url"),
    ],
)
def test_wheels_that_are_not_as_listed_are_not_installed(
    registry: Registry,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[bytes], bytes],
    reason: Reason,
    sentence: str,
) -> None:
    monkeypatch.setenv(launch.SLOT, launch.INSTALLED)
    monkeypatch.setenv(launch.PYTHON, sys.executable)
    files = wheelhouse()
    files["requirements.txt"] = spoil(files["requirements.txt"])
    registry.order(publish(registry, files))
    device.work(refresh=True, boot=True)
    slot = device.slot(AGENT_MODEL)
    assert (slot.state, slot.reason) == (ModelState.FAILED, reason)
    assert sentence in (slot.detail or "")
    assert not [p for p in device.layout.programs.glob("*") if not p.name.startswith(".")]

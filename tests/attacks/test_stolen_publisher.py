"""A publisher key is stolen, and the server with it: what a device remembers, what clears it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Targets

from pilotwave_agent.commands.status import lines_of, status
from pilotwave_protocol import names, signing
from pilotwave_protocol.fields import MAX_INT
from pilotwave_protocol.rolebounds import MAX_COUNTER, MAX_COUNTER_STEP
from pilotwave_protocol.states import ModelState, Reason
from pilotwave_protocol.trust import ModelPolicy, ModelReset, VersionTarget
from tests.attacks.test_stolen_keys import MODEL, ROLE, evil
from tests.attacks.victim import Victim
from tests.peers.registry import Registry, example


def put_policy(registry: Registry, **changes: object) -> None:
    def change(role: Targets) -> None:
        known = signing.policy_of(role, MODEL)
        signing.set_policy(role, MODEL, replace(known, **changes))

    registry.amend(MODEL, change)


def rotate(registry: Registry, known: Targets, **changes: object) -> None:
    """Give the model to a new key, and reset it to what `known` says."""
    life = timedelta(days=365)
    fresh = CryptoSigner.generate_ed25519()
    registry.targets = signing.next_version_of(registry.targets, now=registry.now, lifetime=life)
    targets = registry.targets.signed
    signing.delegate(targets, MODEL, signing.RoleKeys((fresh.public_key,), 1))
    last = signing.reset_of(targets, MODEL)
    reset = ModelReset(
        epoch=last.epoch + 1 if last else 1,
        role_version=registry.roles[ROLE].signed.version + 1,
        counter=signing.next_counter(known) - 1,
        floor=signing.policy_of(known, MODEL).floor,
    )
    signing.set_reset(targets, MODEL, replace(reset, **changes))
    registry._keep_targets()
    registry.publishers[ROLE] = fresh

    def back(role: Targets) -> None:
        role.targets = dict(known.targets)

    registry.amend(MODEL, back)


def copy_of(registry: Registry) -> Targets:
    life = timedelta(days=180)
    return signing.next_version_of(registry.roles[ROLE], now=registry.now, lifetime=life).signed


@pytest.mark.parametrize("counter", [MAX_INT, MAX_COUNTER + 1, 3 + MAX_COUNTER_STEP])
def test_a_device_refuses_a_counter_that_leaps(victim: Victim, counter: int) -> None:
    registry, known = victim.registry, copy_of(victim.registry)
    _, target = evil(registry)
    leap = replace(target, counter=counter)
    registry.amend(MODEL, lambda role: signing.add_version(role, leap))
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_INVALID)
    rotate(registry, known)
    victim.recovers()


@pytest.mark.parametrize("floor", [MAX_INT, MAX_COUNTER, 4])
def test_a_device_learns_no_floor_above_what_is_published(victim: Victim, floor: int) -> None:
    registry, known = victim.registry, copy_of(victim.registry)
    put_policy(registry, floor=floor)
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_INVALID)
    assert MODEL not in victim.device.state.memory.floors
    rotate(registry, known)
    victim.recovers()


def test_invented_yanks_fill_no_devices_memory(victim: Victim) -> None:
    registry = victim.registry
    for n in range(3):
        invented = frozenset(f"{n:02x}{i:062x}" for i in range(10_000))
        put_policy(registry, yanked=invented)
        victim.device.work(refresh=True)
    assert not victim.device.state.memory.yanks
    assert victim.device.layout.journal.stat().st_size < 100_000
    victim.recovers()


def test_another_models_publisher_yanks_nothing_of_this_one(victim: Victim) -> None:
    """Not by its policy, nor by listing the version's digest in its own role."""
    registry = victim.registry
    other = registry.publish("other", "1.0.0", example("1.0.0"))
    registry.order(victim.old, other)
    victim.device.work(refresh=True)
    digests = frozenset({victim.old.sha256, victim.new.sha256})
    mine = VersionTarget("other", "2.0.0", victim.old.sha256, victim.old.length, 2)
    registry.amend("other", lambda role: signing.add_version(role, mine))
    registry.amend("other", lambda role: signing.set_policy(role, "other", ModelPolicy(0, digests)))
    victim.device.work(refresh=True)
    assert victim.device.slot().state is ModelState.HEALTHY
    assert victim.device.slot().current.version == "1.0.0"
    registry.order(victim.new, other)
    victim.device.work(refresh=True)
    assert victim.device.current().startswith("1.1.0-")


def test_a_device_whose_only_version_is_yanked_keeps_it_and_says_so(victim: Victim) -> None:
    registry = victim.registry
    before = victim.served()
    registry.yank(MODEL, "1.0.0")
    victim.device.work(refresh=True)
    slot = victim.device.slot()
    assert (slot.state, slot.reason) == (ModelState.FAILED, Reason.YANKED)
    assert slot.detail == (
        "1.0.0 was yanked by its publisher, but no other version here may run: it keeps serving"
        " until one is ordered"
    )
    assert victim.served() == before
    told = [e for e in victim.device.state.events if e.reason == Reason.YANKED]
    assert told
    assert any("keeps serving" in line for line in lines_of(status(victim.device.config)))
    victim.recovers()


def test_a_reset_lets_the_version_run_that_a_thief_had_yanked(victim: Victim) -> None:
    registry, known = victim.registry, copy_of(victim.registry)
    registry.yank(MODEL, "1.0.0")
    put_policy(registry, floor=2)
    victim.device.work(refresh=True)
    assert victim.device.slot().state is ModelState.FAILED
    rotate(registry, known)
    victim.device.work(refresh=True)
    slot = victim.device.slot()
    assert (slot.state, slot.reason, slot.current.version) == (ModelState.HEALTHY, None, "1.0.0")
    memory = victim.device.state.memory
    assert (dict(memory.floors), dict(memory.epochs)) == ({}, {MODEL: 1})
    victim.recovers()
    # and the owner may yank again
    registry.yank(MODEL, "1.1.0")
    registry.order(victim.old)
    victim.device.work(refresh=True)
    assert victim.device.current().startswith("1.0.0-")


def test_what_a_reset_removed_runs_no_more(victim: Victim) -> None:
    registry, known = victim.registry, copy_of(victim.registry)
    bad = registry.publish(MODEL, "6.6.6", example("1.3.0"))
    registry.order(bad)
    victim.device.work(refresh=True)
    assert victim.device.current().startswith("6.6.6-")
    rotate(registry, known, counter=3, yanked=frozenset({bad.sha256}))
    victim.device.work(refresh=True)
    assert victim.device.current().startswith("1.0.0-")
    assert victim.device.state.memory.has_yanked(MODEL, bad.sha256)
    registry.order(victim.new)
    victim.device.work(refresh=True)
    assert victim.device.current().startswith("1.1.0-")


def test_a_thief_of_the_online_key_offers_no_role_of_before_the_reset(victim: Victim) -> None:
    """The publisher's key was not rotated, so that the old role is signed well enough."""
    registry, known = victim.registry, copy_of(victim.registry)
    put_policy(registry, floor=2)
    poisoned = registry.roles[ROLE]
    key = registry.publishers[ROLE]
    rotate(registry, known)
    reset = registry.targets.signed
    signing.delegate(reset, MODEL, signing.RoleKeys((key.public_key,), 1))
    registry._keep_targets()
    registry.publishers[ROLE] = key
    registry.amend(MODEL)
    honest, registry.roles[ROLE] = registry.roles[ROLE], poisoned
    registry.seal()
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_ROLLBACK)
    assert not victim.device.state.memory.floors
    registry.roles[ROLE] = honest
    registry.seal()
    victim.recovers()


def test_the_publishers_own_word_is_no_reset(victim: Victim) -> None:
    registry = victim.registry
    put_policy(registry, floor=2)
    victim.recovers()
    path = names.reset_path(MODEL)
    scratch = copy_of(registry)
    signing.set_reset(scratch, MODEL, ModelReset(1, 1))

    def claim(role: Targets) -> None:
        role.targets[path] = scratch.targets[path]

    registry.amend(MODEL, claim)
    registry.order(victim.old)
    victim.device.work(refresh=True)
    assert victim.device.current().startswith("1.1.0-")
    assert victim.device.state.memory.floors == {MODEL: 2}

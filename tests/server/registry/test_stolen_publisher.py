"""A publisher key is stolen: what it cannot sign, and how the targets role clears the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from pilotwave_protocol import names, signing
from pilotwave_protocol.fields import MAX_INT
from pilotwave_protocol.rolebounds import MAX_COUNTER, MAX_COUNTER_STEP
from pilotwave_protocol.signing import RoleKeys
from pilotwave_protocol.trust import ModelPolicy, ModelReset
from pilotwave_server.errors import ServerError
from pilotwave_server.registry import documents, service
from pilotwave_server.registry.authority import BadTargets
from pilotwave_server.registry.checks import Unsigned
from pilotwave_server.registry.entries import CounterLeaps, CounterNotRising
from pilotwave_server.registry.policy import FloorTooHigh, YankUnknown
from pilotwave_server.registry.resets import BadReset, ResetOutOfOrder, ResetWithoutRole
from tests.server.registry.offline import new_key, publics
from tests.server.registry.registry import Registry

MODEL = "detector"
Change = Callable[[Targets], None]


def signed(registry: Registry, change: Change, *, by: object = None) -> Metadata[Targets]:
    role = registry.offline.next_role(registry.role(MODEL))
    change(role.signed)
    return signing.sign(role, [by or registry.offline.publishers[MODEL]])


def policy(**changes: object) -> Change:
    def change(role: Targets) -> None:
        known = signing.policy_of(role, MODEL)
        signing.set_policy(role, MODEL, replace(known, **changes))

    return change


@pytest.mark.parametrize("counter", [MAX_INT, MAX_COUNTER, 2 + MAX_COUNTER_STEP])
def test_a_counter_does_not_leap(registry: Registry, counter: int) -> None:
    registry.publish(MODEL, "1.0.0")
    with pytest.raises(CounterLeaps, match="at most 1001 after 1") as no:
        registry.publish(MODEL, "6.6.6", counter=counter)
    assert no.value.code == "counter_leaps"


def test_a_counter_may_leave_some_out(registry: Registry) -> None:
    registry.publish(MODEL, "1.0.0")
    registry.publish(MODEL, "1.1.0", counter=1 + MAX_COUNTER_STEP)
    registry.publish(MODEL, "1.2.0")


@pytest.mark.parametrize("floor", [2, MAX_INT])
def test_a_floor_leaves_the_newest_version(registry: Registry, floor: int) -> None:
    registry.publish(MODEL, "1.0.0")
    with pytest.raises(FloorTooHigh, match="at most 1, the newest counter"):
        registry.hand_in(MODEL, signed(registry, policy(floor=floor)))


def test_what_was_never_published_is_not_yanked(registry: Registry) -> None:
    registry.publish(MODEL, "1.0.0")
    registry.create_model("other")
    registry.publish("other", "1.0.0")
    [other] = registry.role("other").signed.targets.keys() - {names.policy_path("other")}
    foreign = registry.role("other").signed.targets[other].hashes["sha256"]
    for invented in ({f"{n:064x}" for n in range(10_000)}, {foreign}):
        with pytest.raises(YankUnknown) as no:
            registry.hand_in(MODEL, signed(registry, policy(yanked=frozenset(invented))))
        assert no.value.code == "yank_unknown"


# --- the reset


def poison(registry: Registry) -> Metadata[Targets]:
    """What the server took before it knew bounds: a counter and a floor at the end of all numbers,
    invented yanks, and good versions yanked and taken off."""

    def change(role: Targets) -> None:
        signing.yank(role, MODEL, "1.1.0", reason="stolen", now=registry.clock())
        known = signing.policy_of(role, MODEL).yanked
        invented = frozenset(f"{n:064x}" for n in range(9_000))
        signing.set_policy(role, MODEL, ModelPolicy(MAX_INT, known | invented))
        del role.targets[names.target_path(MODEL, "1.0.0")]

    role = signed(registry, change)
    with registry.db.write() as session:
        documents.insert(session, names.role_for_model(MODEL), role, now=registry.clock())
    return role


def good(registry: Registry) -> Metadata[Targets]:
    registry.publish(MODEL, "1.0.0")
    registry.publish(MODEL, "1.1.0")
    return registry.role(MODEL)


def reset_to(
    registry: Registry, known: Metadata[Targets], **changes: object
) -> tuple[Metadata[Targets], Metadata[Targets]]:
    """Targets that give the model to a new key and reset it to `known`, and the role that goes
    with them."""
    targets = registry.offline.next_targets(registry.targets())
    fresh = new_key()
    signing.delegate(targets.signed, MODEL, RoleKeys(publics([fresh]), 1))
    role = registry.offline.next_role(registry.role(MODEL))
    role.signed.targets = dict(known.signed.targets)
    last = signing.reset_of(registry.targets().signed, MODEL)
    reset = ModelReset(
        epoch=last.epoch + 1 if last else 1,
        role_version=role.signed.version,
        counter=signing.next_counter(known.signed) - 1,
        floor=signing.policy_of(known.signed, MODEL).floor,
    )
    signing.set_reset(targets.signed, MODEL, replace(reset, **changes))
    registry.offline.publishers[MODEL] = fresh
    return registry.offline.sign_targets(targets), signing.sign(role, [fresh])


def test_after_a_reset_the_owner_publishes_and_yanks_again(
    registry: Registry, tmp_path: Path
) -> None:
    known = good(registry)
    poison(registry)
    with pytest.raises(ServerError):
        registry.publish(MODEL, "1.2.0")
    targets, role = reset_to(registry, known)
    registry.submit(targets=targets, roles={MODEL: role})
    device = registry.device(tmp_path / "d")
    assert device.sees(MODEL, "1.0.0")
    with registry.db.read() as session:
        assert [(r.listed, r.yanked) for r in service.released(session, remembered={})] == [
            (True, None),
            (True, None),
        ]
        assert service.floors(session) == {MODEL: 0}
    registry.publish(MODEL, "1.2.0")
    registry.yank(MODEL, "1.2.0")
    registry.publish(MODEL, "1.3.0")
    assert device.sees(MODEL, "1.3.0")


def test_versions_of_the_thief_are_removed_and_their_numbers_are_free_no_more(
    registry: Registry,
) -> None:
    known = good(registry)
    registry.publish(MODEL, "6.6.6")
    bad = registry.role(MODEL).signed.targets[names.target_path(MODEL, "6.6.6")].hashes["sha256"]
    targets, role = reset_to(registry, known)
    with pytest.raises(BadReset, match="name its digest"):
        registry.submit(targets=targets, roles={MODEL: role})
    targets, role = reset_to(registry, known, yanked=frozenset({bad}))
    registry.submit(targets=targets, roles={MODEL: role})
    with registry.db.read() as session:
        listed = {r.version: r.listed for r in service.released(session, remembered={})}
    assert listed == {"1.0.0": True, "1.1.0": True, "6.6.6": False}
    with pytest.raises(CounterNotRising, match="a reset removed"):
        registry.publish(MODEL, "1.2.0", counter=3)
    registry.publish(MODEL, "1.2.0", counter=4)


def test_a_reset_can_be_made_again(registry: Registry) -> None:
    known = good(registry)
    for _ in range(3):
        poison(registry)
        targets, role = reset_to(registry, known)
        registry.submit(targets=targets, roles={MODEL: role})
    registry.publish(MODEL, "1.2.0")


def test_no_publisher_resets(registry: Registry) -> None:
    known = good(registry)
    thief = registry.offline.publishers[MODEL]
    targets, role = reset_to(registry, known)
    signing.sign(targets, [thief])
    with pytest.raises(Unsigned):
        registry.submit(targets=targets, roles={MODEL: role})
    registry.offline.publishers[MODEL] = thief

    def list_it(role: Targets) -> None:
        path = names.reset_path(MODEL)
        role.targets[path] = targets.signed.targets[path]

    with pytest.raises(ServerError):
        registry.hand_in(MODEL, signed(registry, list_it))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"epoch": 2}, ResetOutOfOrder),  # would leave no room
        ({"epoch": MAX_INT}, ResetOutOfOrder),
        ({"role_version": MAX_INT}, BadReset),  # devices would wait for it for ever
        ({"role_version": 1}, BadReset),
        ({"floor": 1}, BadReset),  # another floor than the role's
        ({"counter": 1}, BadReset),  # below a version that it lists
        ({"yanked": frozenset({"0" * 64})}, BadReset),
    ],
)
def test_a_reset_that_strands_somebody_is_refused(
    registry: Registry, changes: dict[str, object], error: type[ServerError]
) -> None:
    targets, role = reset_to(registry, good(registry), **changes)
    with pytest.raises(error):
        registry.submit(targets=targets, roles={MODEL: role})


def test_a_reset_lists_only_what_was_published(registry: Registry) -> None:
    known = good(registry)
    path = names.target_path(MODEL, "1.1.0")
    known.signed.targets[path].hashes["sha256"] = "0" * 64
    targets, role = reset_to(registry, known)
    with pytest.raises(BadReset, match="published before, unchanged"):
        registry.submit(targets=targets, roles={MODEL: role})


def test_a_reset_comes_with_its_role_and_stays(registry: Registry) -> None:
    known = good(registry)
    targets, role = reset_to(registry, known)
    lone = registry.offline.next_targets(registry.targets())
    path = names.reset_path(MODEL)
    lone.signed.targets[path] = targets.signed.targets[path]
    with pytest.raises(ResetWithoutRole):
        registry.submit(targets=registry.offline.sign_targets(lone))
    registry.submit(targets=targets, roles={MODEL: role})
    after = registry.offline.next_targets(registry.targets())
    del after.signed.targets[path]
    with pytest.raises(ResetOutOfOrder, match="must stay"):
        registry.submit(targets=registry.offline.sign_targets(after))


def test_targets_have_no_reset_of_a_model_that_is_not_there(registry: Registry) -> None:
    targets = registry.offline.next_targets(registry.targets())
    signing.set_reset(targets.signed, "nobody", ModelReset(1, 1))
    with pytest.raises(BadTargets, match="no other target"):
        registry.submit(targets=registry.offline.sign_targets(targets))

"""The rules for a model's reset: how the targets role clears what a stolen publisher key signed.
Pure.

A reset comes in one submission with the targets document that says it and with the next document of
the model's role. It may do what no publisher may: lower the floor, forget yanks, list again what
was taken off, and take off what the thief published. What it lists must have been published before,
unchanged; new versions come after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tuf.api.metadata import Targets

from pilotwave_protocol import names, signing
from pilotwave_protocol.digest import EMPTY_SHA256
from pilotwave_protocol.errors import BadName, BadTrustData
from pilotwave_protocol.trust import ModelPolicy, ModelReset, VersionTarget
from pilotwave_server.errors import Conflict, Invalid
from pilotwave_server.registry.entries import KnownVersion


class BadReset(Invalid):
    code = "bad_reset"


class ResetOutOfOrder(Conflict):
    code = "reset_out_of_order"


class ResetWithoutRole(Invalid):
    code = "reset_without_role"


def read_resets(targets: Targets, models: Collection[str]) -> dict[str, ModelReset]:
    """The resets of a targets document by model, strictly."""
    found = {}
    for model in models:
        path = names.reset_path(model)
        target = targets.targets.get(path)
        if target is None:
            continue
        if target.length != 0 or target.hashes != {"sha256": EMPTY_SHA256}:
            raise BadReset(f"{path}: expected length 0 and the SHA-256 of nothing")
        try:
            reset = signing.reset_of(targets, model)
        except (BadName, BadTrustData) as error:
            raise BadReset(f"{path}: {error}") from error
        if reset is None or target.custom != reset.to_custom():
            raise BadReset(f"{path}: expected epoch, role_version, counter, floor and yanked")
        found[model] = reset
    return found


def new_resets(
    before: Mapping[str, ModelReset], after: Mapping[str, ModelReset], *, roles: Collection[str]
) -> dict[str, ModelReset]:
    """Those that a targets document adds. One that was made stays for devices that come late."""
    for model, old in before.items():
        if model not in after or after[model].epoch < old.epoch:
            raise ResetOutOfOrder(f"{model}: its reset {old.epoch} must stay in the targets")
    fresh = {model: reset for model, reset in after.items() if before.get(model) != reset}
    for model, reset in fresh.items():
        expected = before[model].epoch + 1 if model in before else 1
        if reset.epoch != expected:
            raise ResetOutOfOrder(f"{model}: expected reset {expected}; got {reset.epoch}")
        if model not in roles:
            raise ResetWithoutRole(f"{model}: send the next document of its role with its reset")
    return fresh


def check_reset(
    reset: ModelReset,
    *,
    role_version: int,
    before: Mapping[str, VersionTarget],
    after: Mapping[str, VersionTarget],
    policy: ModelPolicy,
    known: Sequence[KnownVersion],
) -> tuple[str, ...]:
    """In place of step 9: the role that comes with a reset. Returns the versions it takes off."""
    if reset.role_version != role_version:
        raise BadReset(f"expected role_version {role_version}; got {reset.role_version}")
    if policy.floor != reset.floor:
        raise BadReset(f"expected the role's floor to be {reset.floor}; got {policy.floor}")
    published = {(v.version, v.counter, v.sha256) for v in known}
    for path, entry in after.items():
        if (entry.version, entry.counter, entry.sha256) not in published:
            raise BadReset(f"{path}: a reset lists only what was published before, unchanged")
        if entry.counter > reset.counter:
            raise BadReset(f"{path}: its counter {entry.counter} is above the reset's")
    if unknown := reset.yanked - {v.sha256 for v in known}:
        raise BadReset(f"{min(unknown)} is not the digest of a version of this model")
    gone = [old for path, old in before.items() if path not in after]
    for old in gone:
        if old.counter >= reset.floor and old.sha256 not in reset.yanked:
            raise BadReset(
                f"{old.model} {old.version} is taken off: name its digest in the reset's yanked"
            )
    return tuple(old.version for old in gone)

"""The rules for root and targets: who may hold which role. Pure.

The server's own keys may hold snapshot, timestamp and directives, and nothing else: it must never
be able to approve content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tuf.api.metadata import DelegatedRole, Key, Metadata, Root, Snapshot, Targets, Timestamp

from pilotwave_protocol import names
from pilotwave_protocol.digest import EMPTY_SHA256
from pilotwave_protocol.errors import BadName, BadTrustData
from pilotwave_protocol.trust import DirectorKeys, ModelReset
from pilotwave_server.errors import Conflict, Invalid
from pilotwave_server.registry.checks import (
    check_expiry,
    check_next_version,
    check_signatures,
)
from pilotwave_server.registry.keys import ServerKey
from pilotwave_server.registry.resets import read_resets
from pilotwave_server.registry.sealing import online_signers

ONLINE_ROLES = (Snapshot.type, Timestamp.type)


class BadRoot(Invalid):
    code = "bad_root"


class BadTargets(Invalid):
    code = "bad_targets"


class WrongFleet(Conflict):
    code = "wrong_fleet"


class NoDirectorKey(Conflict):
    code = "no_director_key"


class ServerKeyMisused(Conflict):
    """A key that this server holds was given a role that must stay offline."""

    code = "server_key_misused"


class ModelRemoved(Conflict):
    code = "model_removed"


def check_root(
    new: Metadata[Root],
    *,
    current: Metadata[Root] | None,
    online: Sequence[ServerKey],
    now: datetime,
) -> None:
    """The next root: signed by enough old root keys and its own, and usable by this server."""
    check_next_version(new, current, Root.type)
    if current is not None:
        check_signatures(current.signed, Root.type, new)
    check_signatures(new.signed, Root.type, new)
    check_expiry(new, Root.type, now=now)
    root = new.signed
    if root.consistent_snapshot is not True:
        raise BadRoot("root: expected consistent_snapshot true")
    for name, role in root.roles.items():
        if not 1 <= role.threshold <= len(role.keyids) or not set(role.keyids) <= set(root.keys):
            raise BadRoot(f"root: {name} lists too few keys for its threshold of {role.threshold}")
    for name in ONLINE_ROLES:
        online_signers(root, name, online)
    offline = {*root.roles[Root.type].keyids, *root.roles[Targets.type].keyids}
    if _held({k: root.keys[k] for k in offline}, online):
        raise ServerKeyMisused("root: a key of the server may not hold root or targets")


def check_targets(
    new: Metadata[Targets],
    *,
    current: Metadata[Targets] | None,
    root: Root,
    fleet: str,
    online: Sequence[ServerKey],
    director: Sequence[ServerKey],
    now: datetime,
) -> None:
    """The next targets: the director keys, one delegation per model and their resets, nothing
    else."""
    check_next_version(new, current, Targets.type)
    check_signatures(root, Targets.type, new)
    check_expiry(new, Targets.type, now=now)
    check_director(director_keys(new.signed), fleet=fleet, held=director)
    models = delegated_models(new.signed)
    publishers = new.signed.delegations.keys if new.signed.delegations else {}
    if _held(publishers, [*online, *director]):
        raise ServerKeyMisused("targets: a key of the server may not be a publisher's")
    gone = sorted(set(delegated_models(current.signed)) - set(models)) if current else []
    if gone:
        raise ModelRemoved(f"targets: {gone[0]} is missing; a model cannot be taken away")


def _held(keys: Mapping[str, Key], held: Sequence[ServerKey]) -> bool:
    """Whether any of `keys` is one of the server's. Key ids can be chosen, so the key counts."""
    mine = [key.public.keyval for key in held]
    return any(key.keyval in mine for key in keys.values())


def director_keys(targets: Targets) -> DirectorKeys:
    """What `fleet/director` says, strictly."""
    resets = {names.reset_path(model) for model in delegated_models(targets)}
    if set(targets.targets) - resets != {names.DIRECTOR_PATH}:
        raise BadTargets(
            f"targets: expected {names.DIRECTOR_PATH}, resets of models and no other target"
        )
    target = targets.targets[names.DIRECTOR_PATH]
    if target.length != 0 or target.hashes != {"sha256": EMPTY_SHA256}:
        raise BadTargets(f"{names.DIRECTOR_PATH}: expected length 0 and the SHA-256 of nothing")
    try:
        return DirectorKeys.from_custom(target.custom)
    except (BadName, BadTrustData) as error:
        raise BadTargets(str(error)) from error


def check_director(listed: DirectorKeys, *, fleet: str, held: Sequence[ServerKey]) -> None:
    """The fleet is this one, and this server can go on signing directives."""
    if listed.fleet != fleet:
        raise WrongFleet(f"{names.DIRECTOR_PATH} is of fleet {listed.fleet}; this is {fleet}")
    usable = [key for key in held if key.director_keyid in listed.keys]
    if len(usable) < listed.threshold:
        raise NoDirectorKey(
            f"{names.DIRECTOR_PATH} wants {listed.threshold} of its keys to sign; this server holds"
            f" {len(usable)} of them; see GET /api/v1/trust/server-keys"
        )


def delegated_models(targets: Targets) -> Mapping[str, DelegatedRole]:
    """The delegations by model; BadTargets for one that is not a model's, exactly."""
    delegations = targets.delegations
    if delegations is None:
        return {}
    if delegations.roles is None:
        raise BadTargets("targets: expected one delegation per model, no hash bins")
    return {
        _model_of(name, role, delegations.keys): role for name, role in delegations.roles.items()
    }


def _model_of(name: str, role: DelegatedRole, keys: Mapping[str, object]) -> str:
    try:
        model = names.model_of_role(name)
    except BadName as error:
        raise BadTargets(f"targets: {error}") from error
    if role.paths != [names.delegation_path(model)] or role.path_hash_prefixes is not None:
        raise BadTargets(f"{name}: expected the path {names.delegation_path(model)} alone")
    if role.terminating is not True:
        raise BadTargets(f"{name}: expected a terminating delegation")
    if not 1 <= role.threshold <= len(role.keyids) or not set(role.keyids) <= set(keys):
        raise BadTargets(f"{name}: lists too few keys for its threshold of {role.threshold}")
    return model


def resets_of(targets: Targets | None) -> dict[str, ModelReset]:
    """The resets that a targets document says, by model."""
    return read_resets(targets, delegated_models(targets)) if targets else {}


def holders(targets: Targets | None) -> dict[str, tuple[frozenset[str], int]]:
    """Who holds each model's role: key ids and threshold."""
    delegated = delegated_models(targets) if targets else {}
    return {model: (frozenset(role.keyids), role.threshold) for model, role in delegated.items()}

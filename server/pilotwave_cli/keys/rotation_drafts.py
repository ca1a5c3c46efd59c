"""Drafts that change who holds a role, in the order that keeps every device working.

Each function takes the present documents and returns the draft that is to be signed and handed in
as one. Source: TUF specification, section 6.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Root, Targets

from pilotwave_cli.errors import CliError
from pilotwave_cli.keys.drafts import Draft
from pilotwave_protocol import dsse, names, signing
from pilotwave_protocol.signing import RoleKeys
from pilotwave_protocol.trust import DirectorKeys

RootDoc = Metadata[Root]
TargetsDoc = Metadata[Targets]


def keep_apart(root: RootDoc, targets: TargetsDoc, role: str, holders: RoleKeys) -> None:
    """Refuse a key for `role` that holds another kind of role, or raise nothing.

    A publisher's key lies where versions are made, often in a CI; the same key as a root or targets
    key would make whoever steals it there the owner of every model. Keys are compared by what they
    are: an id can be chosen.
    """
    taken = {
        str(root.signed.keys[keyid].keyval): name
        for name in ("root", "targets")
        for keyid in root.signed.roles[name].keyids
    }
    delegations = targets.signed.delegations
    if role in ("root", "targets") and delegations:
        taken |= {str(key.keyval): "publisher" for key in delegations.keys.values()}
    for key in holders.keys:
        found = taken.get(str(key.keyval), role)
        if found != role:
            raise CliError(
                f"key {key.keyid[:12]}… is a {found} key of this fleet and cannot be a {role} key "
                "too, so that a thief of the one has not both. "
                f"Make another key: `{_make_key(role)}`"
            )


def _make_key(role: str) -> str:
    return f"openssl genpkey -algorithm ed25519 -aes256 -out {role}-new.pem"


def next_root(root: RootDoc, now: datetime) -> RootDoc:
    """Return root N+1, unsigned."""
    return signing.next_version_of(root, now=now, lifetime=signing.ROOT_LIFETIME)


def next_targets(targets: TargetsDoc, now: datetime) -> TargetsDoc:
    """Return the next targets document, unsigned."""
    return signing.next_version_of(targets, now=now, lifetime=signing.TARGETS_LIFETIME)


def next_role(role: TargetsDoc, now: datetime) -> TargetsDoc:
    """Return a model role's next document, unsigned."""
    return signing.next_version_of(role, now=now, lifetime=signing.ROLE_LIFETIME)


def rotate_root(root: RootDoc, holders: RoleKeys, now: datetime) -> Draft:
    """Root N+1 under new keys; thresholds of old and new keys must sign it."""
    fresh = next_root(root, now)
    signing.set_role_keys(fresh.signed, "root", holders)
    return Draft("/trust/root", root=fresh, judge=root)


def rotate_targets(root: RootDoc, targets: TargetsDoc, holders: RoleKeys, now: datetime) -> Draft:
    """One bundle: root N+1 that lists the new targets keys, and targets signed by them."""
    keep_apart(root, targets, "targets", holders)
    fresh = next_root(root, now)
    signing.set_role_keys(fresh.signed, "targets", holders)
    bundle = next_targets(targets, now)
    return Draft("/trust/root", root=fresh, targets=bundle, judge=root, owner=targets)


def rotate_online(root: RootDoc, key: Key, now: datetime) -> Draft:
    """Root N+1 that lists the server's new online key for snapshot and timestamp."""
    fresh = next_root(root, now)
    for role in ("snapshot", "timestamp"):
        signing.set_role_keys(fresh.signed, role, RoleKeys((key,), 1))
    return Draft("/trust/root", root=fresh, judge=root)


def rotate_director(
    root: RootDoc, targets: TargetsDoc, public: bytes, now: datetime, *, keep_old: bool
) -> Draft:
    """Targets that list the server's new director key, with `keep_old` as the newest of several.

    Devices need no overlap: they take in the new targets before they judge a directive. Raises
    `ValueError` where one key cannot meet the threshold.
    """
    fresh = next_targets(targets, now)
    held = director_of(targets.signed)
    key = Ed25519PublicKey.from_public_bytes(public)
    known = [k for k in (held.order or sorted(held.keys)) if k != dsse.keyid(key)]
    order = (*(known if keep_old else []), dsse.keyid(key))
    if len(order) < held.threshold:
        raise ValueError(
            f"{held.threshold} director keys must sign: rotate with --keep-old, once for each"
        )
    keys = {k: held.keys[k] for k in order[:-1]} | {order[-1]: key}
    listed = DirectorKeys(held.fleet, keys, held.threshold, order if len(order) > 1 else ())
    signing.set_director(fresh.signed, listed)
    return Draft("/trust/targets", targets=fresh, judge=root, owner=targets)


def rotate_publisher(
    root: RootDoc,
    targets: TargetsDoc,
    role: TargetsDoc,
    model: str,
    holders: RoleKeys,
    now: datetime,
) -> Draft:
    """One bundle: targets that list only the new publisher keys, and the role signed by them.

    Consistent snapshots show devices the old pair or the new one, never a mixture.
    """
    keep_apart(root, targets, "publisher", holders)
    fresh = next_targets(targets, now)
    signing.delegate(fresh.signed, model, holders)
    roles = {names.role_for_model(model): next_role(role, now)}
    return Draft("/trust/targets", targets=fresh, roles=roles, judge=root, owner=targets)


def next_pair(
    root: RootDoc, targets: TargetsDoc, role: TargetsDoc, model: str, now: datetime
) -> Draft:
    """One bundle: the next targets and the next document of a model's role, keys unchanged."""
    roles = {names.role_for_model(model): next_role(role, now)}
    fresh = next_targets(targets, now)
    return Draft("/trust/targets", targets=fresh, roles=roles, judge=root, owner=targets)


def add_model(
    root: RootDoc, targets: TargetsDoc, model: str, holders: RoleKeys, now: datetime
) -> Draft:
    """Targets that give a new model to its publisher, and the model's first, empty role."""
    keep_apart(root, targets, "publisher", holders)
    fresh = next_targets(targets, now)
    signing.delegate(fresh.signed, model, holders)
    roles = {names.role_for_model(model): signing.make_role(model, now=now)}
    return Draft("/trust/targets", targets=fresh, roles=roles, judge=root, owner=targets)


def director_of(targets: Targets) -> DirectorKeys:
    """Return the director keys that a targets document publishes."""
    return DirectorKeys.from_custom(targets.targets[names.DIRECTOR_PATH].custom)


def public_keys(keys: Sequence[Key], threshold: int) -> RoleKeys:
    """Return role keys, or raise `ValueError` when the threshold cannot be met."""
    if not 1 <= threshold <= len(keys):
        raise ValueError(f"a threshold of {threshold} cannot be met with {len(keys)} key(s)")
    return RoleKeys(tuple(keys), threshold)

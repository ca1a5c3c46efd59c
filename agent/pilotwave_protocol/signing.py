"""Make keys and write TUF metadata: for publishers, key holders and the server, never for devices.

Signers are securesystemslib's. Wherever a key is named, it may be a PEM file (PKCS#8, encrypted
with a passphrase or plain with mode 0600) or a key reference: a JSON file {"uri", "keyid", "key"}
that points to a KMS, PKCS#11 token or any other signer securesystemslib knows.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.exceptions import Error as SecuresystemslibError
from securesystemslib.signer import CryptoSigner, Key, Signer
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from pilotwave_protocol import names, strictjson
from pilotwave_protocol.digest import EMPTY_SHA256
from pilotwave_protocol.errors import BadJson, SigningError
from pilotwave_protocol.fields import format_time
from pilotwave_protocol.trust import DirectorKeys, ModelPolicy, ModelReset, VersionTarget

ROOT_LIFETIME = timedelta(days=730)
TARGETS_LIFETIME = timedelta(days=365)
ROLE_LIFETIME = timedelta(days=180)
SNAPSHOT_LIFETIME = timedelta(days=14)
TIMESTAMP_LIFETIME = timedelta(days=3)
SPEC_VERSION = "1.0.31"
S = TypeVar("S", Root, Timestamp, Snapshot, Targets)
Passphrase = Callable[[str], "str | None"]
"""Asked with the file's name; None means that there is no passphrase to be had."""


@dataclass(frozen=True)
class RoleKeys:
    """The public keys of a role and how many of them must sign."""

    keys: tuple[Key, ...]
    threshold: int


# --- keys ------------------------------------------------------------------------------------


def generate_key(path: Path, passphrase: str | None = None) -> CryptoSigner:
    """Make an Ed25519 key in a new file of mode 0600; an existing file is never overwritten."""
    private = Ed25519PrivateKey.generate()
    write_secret(path, private_pem(private, passphrase))
    return CryptoSigner(private)


def private_pem(private: Ed25519PrivateKey, passphrase: str | None = None) -> bytes:
    """A private key as PEM, encrypted where there is a passphrase."""
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase:
        encryption = BestAvailableEncryption(passphrase.encode())
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file of mode 0600, on disk when this returns."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as e:
        raise SigningError(f"{path}: exists already; move it away first") from e
    except OSError as e:
        raise SigningError(f"{path}: cannot be written: {e.strerror}") from e
    with os.fdopen(fd, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def load_signer(ref: str | Path, passphrase: Passphrase | None = None) -> Signer:
    """Load a signer from a PEM file or a key reference, or raise `SigningError` with what to do."""
    path = Path(str(ref).removeprefix("file2:").removeprefix("file:"))
    return parse_signer(path, read_key_file(path), passphrase)


def parse_signer(path: Path, raw: bytes, passphrase: Passphrase | None = None) -> Signer:
    """Make a signer of what was read from a PEM file or key reference; errors call it `path`."""
    if raw.lstrip().startswith(b"{"):
        return _from_reference(path, raw, passphrase)
    key = _private_key(path, raw, passphrase)
    try:
        return CryptoSigner(key)
    except ValueError as e:  # a reader's key, which lies among the others by default
        raise SigningError(f"{path}: expected a key that signs; this one is of another kind") from e


def read_key_file(path: Path) -> bytes:
    """Read a PEM file or key reference. Raises `SigningError`, also where others may read it."""
    try:
        with open(path, "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            raw = stream.read(64 << 10)
    except FileNotFoundError as e:
        raise SigningError(f"{path}: no such file; expected a key (PEM) or a key reference") from e
    except OSError as e:
        raise SigningError(f"{path}: cannot be read: {e.strerror}") from e
    plain = b"PRIVATE KEY" in raw and b"ENCRYPTED" not in raw
    if plain and stat.S_IMODE(mode) & 0o077:
        raise SigningError(
            f"{path}: a key without a passphrase must be its owner's alone; run: chmod 600 {path}"
        )
    return raw


def _private_key(path: Path, raw: bytes, ask: Passphrase | None) -> Any:
    encrypted = b"ENCRYPTED" in raw
    secret = ask(path.name) if encrypted and ask else None
    if encrypted and not secret:
        raise SigningError(f"{path}: is encrypted; give its passphrase (PILOTWAVE_PASSPHRASE)")
    try:
        return load_pem_private_key(raw, secret.encode() if secret else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        if encrypted:
            raise SigningError(f"{path}: wrong passphrase, or not a PEM private key") from e
        key = path.with_suffix(".pem")
        instead = f"; is it {key}?" if key != path and key.is_file() else ""
        raise SigningError(f"{path}: expected a PEM private key (PKCS#8){instead}") from e


def _from_reference(path: Path, raw: bytes, ask: Passphrase | None) -> Signer:
    try:
        data = strictjson.loads(raw, max_bytes=64 << 10)
        key = Key.from_dict(data["keyid"], dict(data["key"]))
        uri = str(data["uri"])
    except (BadJson, KeyError, TypeError, ValueError) as e:
        raise SigningError(f'{path}: expected a key reference {{"uri", "keyid", "key"}}') from e

    def secret(name: str) -> str:
        found = ask(f"{path.name} {name}") if ask else None
        if not found:
            raise SigningError(f"{path}: needs a {name}")
        return found

    try:
        return Signer.from_priv_key_uri(uri, key, secret)
    except (SecuresystemslibError, OSError, ValueError) as e:
        raise SigningError(f"{path}: the signer {uri.split(':')[0]} does not work: {e}") from e


# --- metadata --------------------------------------------------------------------------------


def to_bytes(md: Metadata[S]) -> bytes:
    """Write metadata as it is stored and served: compact JSON."""
    return md.to_bytes(JSONSerializer(compact=True))


def sign(md: Metadata[S], signers: Iterable[Signer], *, append: bool = False) -> Metadata[S]:
    """Sign in place and return it; `append` keeps the signatures that are there."""
    if not append:
        md.signatures.clear()
    for signer in signers:
        try:
            md.sign(signer, append=True)
        # a KMS or token may raise whatever its library does; to a person it is one failure
        except Exception as e:
            raise SigningError(f"key {signer.public_key.keyid[:12]}…: cannot sign: {e}") from e
    return md


def _signed_at(now: datetime) -> dict[str, Any]:
    """The device's time floor reads this; TUF keeps fields that it does not know."""
    return {"signed_at": format_time(now)}


def _whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)


def make_root(roles: Mapping[str, RoleKeys], *, now: datetime, version: int = 1) -> Metadata[Root]:
    """Make a root document for the four top-level roles, unsigned."""
    root = Root(
        version=version,
        spec_version=SPEC_VERSION,
        expires=_whole(now + ROOT_LIFETIME),
        consistent_snapshot=True,
        unrecognized_fields=_signed_at(now),
    )
    for role, holders in roles.items():
        set_role_keys(root, role, holders)
    return Metadata(root)


def set_role_keys(root: Root, role: str, holders: RoleKeys) -> None:
    """Replace the keys and threshold of a top-level role."""
    for keyid in list(root.roles[role].keyids):
        root.revoke_key(keyid, role)
    for key in holders.keys:
        root.add_key(key, role)
    root.roles[role].threshold = holders.threshold


def make_targets(director: DirectorKeys, *, now: datetime) -> Metadata[Targets]:
    """Make the first top-level targets document: the director keys, no model yet; unsigned."""
    targets = Targets(
        version=1,
        spec_version=SPEC_VERSION,
        expires=_whole(now + TARGETS_LIFETIME),
        targets={},
        delegations=Delegations({}, {}),
        unrecognized_fields=_signed_at(now),
    )
    set_director(targets, director)
    return Metadata(targets)


def set_director(targets: Targets, director: DirectorKeys) -> None:
    """Publish the director keys as the pseudo-target `fleet/director`."""
    targets.targets[names.DIRECTOR_PATH] = _pseudo(names.DIRECTOR_PATH, director.to_custom())


def make_role(model: str, *, now: datetime) -> Metadata[Targets]:
    """Make the first document of a model's role: an empty policy, no version yet; unsigned."""
    role = Targets(
        version=1,
        spec_version=SPEC_VERSION,
        expires=_whole(now + ROLE_LIFETIME),
        targets={},
        unrecognized_fields=_signed_at(now),
    )
    set_policy(role, model, ModelPolicy())
    return Metadata(role)


def delegate(targets: Targets, model: str, holders: RoleKeys) -> None:
    """Give a model's role to these publisher keys, replacing whoever held it."""
    name = names.role_for_model(model)
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        delegations = targets.delegations = Delegations({}, {})
    roles = delegations.roles
    if roles is None:  # pragma: no cover - Delegations({}, {}) always has roles
        raise SigningError("hash-bin delegations are not used by Pilotwave")
    if name in roles:
        for keyid in list(roles[name].keyids):
            targets.revoke_key(keyid, name)
    roles[name] = DelegatedRole(
        name, [], holders.threshold, terminating=True, paths=[names.delegation_path(model)]
    )
    for key in holders.keys:
        targets.add_key(key, name)


def next_version_of(md: Metadata[S], *, now: datetime, lifetime: timedelta) -> Metadata[S]:
    """Return a copy with the next version number, a fresh expiry and no signatures."""
    fresh: Metadata[S] = Metadata.from_bytes(md.to_bytes())
    fresh.signed.version += 1
    fresh.signed.expires = _whole(now + lifetime)
    fresh.signed.unrecognized_fields.update(_signed_at(now))
    fresh.signatures.clear()
    return fresh


def add_version(role: Targets, target: VersionTarget) -> None:
    """Add a version's manifest as a TUF target; what is there already never changes."""
    path = names.target_path(target.model, target.version)
    if path in role.targets:
        raise SigningError(f"{target.model} {target.version} is published already")
    custom: dict[str, Any] = {"counter": target.counter}
    if target.unsafe_format:
        custom["unsafe_format"] = True
    role.targets[path] = _target(path, target.length, target.sha256, custom)


def next_counter(role: Targets, reset: ModelReset | None = None) -> int:
    """Return the next release counter of a model: above every published one, the floor and what
    its last reset says."""
    counters = [
        int(t.custom["counter"])
        for path, t in role.targets.items()
        if not path.endswith("/_policy")
    ]
    floors = [int(t.custom["floor"]) for p, t in role.targets.items() if p.endswith("/_policy")]
    return max([reset.counter if reset else 0, *counters, *(f - 1 for f in floors)]) + 1


def yank(role: Targets, model: str, version: str, *, reason: str, now: datetime) -> None:
    """Mark a version as yanked, in its entry and for ever in the model's policy."""
    path = names.target_path(model, version)
    found = role.targets.get(path)
    if found is None:
        raise SigningError(f"{model} {version} is not published, so it cannot be yanked")
    custom = {**found.custom, "yanked": {"reason": reason, "at": format_time(now)}}
    digest = found.hashes["sha256"]
    role.targets[path] = _target(path, found.length, digest, custom)
    policy = policy_of(role, model)
    set_policy(role, model, replace(policy, yanked=policy.yanked | {digest}))


def versions_below(role: Targets, model: str, counter: int) -> list[str]:
    """Return the paths of a model's versions with release counters below `counter`."""
    policy = names.policy_path(model)
    return [p for p, t in role.targets.items() if p != policy and t.custom["counter"] < counter]


def policy_of(role: Targets, model: str) -> ModelPolicy:
    """Return a model's signed policy; an absent one forbids nothing."""
    found = role.targets.get(names.policy_path(model))
    return ModelPolicy() if found is None else ModelPolicy.from_custom(found.custom)


def set_policy(role: Targets, model: str, policy: ModelPolicy) -> None:
    """Publish a model's policy as the pseudo-target `models/<model>/_policy`."""
    path = names.policy_path(model)
    role.targets[path] = _pseudo(path, policy.to_custom())


def reset_of(targets: Targets, model: str) -> ModelReset | None:
    """Return the last reset of a model; None where its publisher's word was never replaced."""
    found = targets.targets.get(names.reset_path(model))
    return None if found is None else ModelReset.from_custom(found.custom)


def set_reset(targets: Targets, model: str, reset: ModelReset) -> None:
    """Publish a model's reset as the pseudo-target `models/<model>/_reset`."""
    path = names.reset_path(model)
    targets.targets[path] = _pseudo(path, reset.to_custom())


def _pseudo(path: str, custom: Mapping[str, Any]) -> TargetFile:
    return _target(path, 0, EMPTY_SHA256, custom)


def _target(path: str, length: int, sha256: str, custom: Mapping[str, Any]) -> TargetFile:
    return TargetFile(length, {"sha256": sha256}, path, {"custom": dict(custom)})

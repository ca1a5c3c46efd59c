"""Each key stolen alone, and the server stolen whole: what a thief still cannot do."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from pilotwave_protocol import names, signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.manifest import FileEntry, Variant, VersionManifest
from pilotwave_protocol.messages.directive import Entry
from pilotwave_protocol.states import Reason
from pilotwave_protocol.trust import ModelPolicy, VersionTarget
from tests.attacks.victim import Victim
from tests.peers.registry import VARIANT, Registry, example

ROLE = "models-detector"
MODEL = "detector"


def evil(registry: Registry, version: str = "6.6.6") -> tuple[Entry, VersionTarget]:
    """Put a version's files and manifest where the registry serves them, signed by nobody."""
    files = example("1.2.0")
    listed = tuple(FileEntry(p, len(b), sha256_hex(b)) for p, b in files.items())
    variant = Variant(VARIANT, "onnxruntime", "model.onnx", listed)
    raw = VersionManifest(MODEL, version, 99, (variant,)).to_bytes()
    digest, path = sha256_hex(raw), names.target_path(MODEL, version)
    folder, _, name = path.rpartition("/")
    registry.files[f"/tuf/targets/{folder}/{digest}.{name}"] = raw
    for data in files.values():
        registry.files[f"/blobs/{sha256_hex(data)}"] = data
    entry = Entry(MODEL, version, path, digest, len(raw), 99, VARIANT)
    return entry, VersionTarget(MODEL, version, digest, len(raw), 99)


def next_role(registry: Registry, role: str = ROLE) -> Metadata[Targets]:
    life = timedelta(days=180)
    return signing.next_version_of(registry.roles[role], now=registry.now, lifetime=life)


def serve(registry: Registry, name: str, md: Metadata) -> None:
    version = md.signed.version
    registry.files[f"/tuf/metadata/{version}.{name}.json"] = signing.to_bytes(md)


def test_one_root_key_makes_no_root(victim: Victim) -> None:
    registry = victim.registry
    root: Metadata = Metadata.from_bytes(registry.root)
    own = CryptoSigner.generate_ed25519()
    root = signing.next_version_of(root, now=registry.now, lifetime=timedelta(days=365))
    for role in ("root", "targets", "snapshot", "timestamp"):
        signing.set_role_keys(root.signed, role, signing.RoleKeys((own.public_key,), 1))
    signing.sign(root, [registry.signers["root"][0], own])
    serve(registry, "root", root)
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_UNSIGNED)
    del registry.files["/tuf/metadata/2.root.json"]
    victim.recovers()


def test_one_root_key_counts_once_however_often_it_signs(victim: Victim) -> None:
    registry = victim.registry
    root: Metadata = Metadata.from_bytes(registry.root)
    root = signing.next_version_of(root, now=registry.now, lifetime=timedelta(days=365))
    signing.sign(root, [registry.signers["root"][0]])
    raw = signing.to_bytes(root)
    one = raw[raw.index(b'"signatures":[') + 14 : raw.index(b"]", raw.index(b'"signatures":['))]
    registry.files["/tuf/metadata/2.root.json"] = raw.replace(one, one + b"," + one)
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_INVALID)
    del registry.files["/tuf/metadata/2.root.json"]
    victim.recovers()


def test_one_targets_key_delegates_to_nobody(victim: Victim) -> None:
    registry = victim.registry
    own, honest = CryptoSigner.generate_ed25519(), registry.targets
    life = timedelta(days=365)
    forged = signing.next_version_of(honest, now=registry.now, lifetime=life)
    signing.delegate(forged.signed, MODEL, signing.RoleKeys((own.public_key,), 1))
    signing.sign(forged, [registry.signers["targets"][2], own])
    serve(registry, "targets", forged)
    registry.targets = forged
    registry.seal()  # a snapshot that names it would need the online key too
    registry.order(victim.new)
    victim.refuses(Reason.METADATA_UNSIGNED)
    registry.targets = signing.next_version_of(honest, now=registry.now, lifetime=life)
    signing.sign(registry.targets, registry.signers["targets"][:2])
    serve(registry, "targets", registry.targets)
    registry.seal()
    victim.recovers()


def test_the_online_key_vouches_for_no_version(victim: Victim) -> None:
    registry, honest = victim.registry, victim.registry.roles[ROLE]
    entry, target = evil(registry)
    forged = next_role(registry)
    signing.add_version(forged.signed, target)
    signing.sign(forged, registry.signers["online"])
    serve(registry, ROLE, forged)
    registry.roles[ROLE] = forged
    registry.seal()
    registry.order(entry)
    victim.refuses(Reason.METADATA_UNSIGNED)
    # the device has seen the forged number, as it had to: the honest role goes beyond it
    registry.roles[ROLE] = honest
    honest.signed.version = forged.signed.version
    victim.new = registry.publish(MODEL, "1.1.1", example("1.1.0"))
    registry.order(victim.new)
    victim.device.work(refresh=True)
    assert victim.device.current().startswith("1.1.1-")


def test_the_directors_key_orders_nothing_that_nobody_signed(victim: Victim) -> None:
    registry = victim.registry
    entry, _ = evil(registry)
    registry.order(entry)
    victim.refuses(Reason.TARGET_UNKNOWN)
    # a known version, but another manifest
    registry.order(replace(entry, version="1.1.0", target=victim.new.target))
    victim.refuses(Reason.TARGET_MISMATCH)
    victim.recovers()


def test_the_directors_key_orders_nothing_below_the_floor_and_nothing_yanked(
    victim: Victim,
) -> None:
    registry = victim.registry
    registry.amend(MODEL, lambda role: signing.set_policy(role, MODEL, ModelPolicy(floor=2)))
    victim.recovers()
    registry.order(victim.old)
    victim.refuses(Reason.BELOW_FLOOR)
    third = registry.publish(MODEL, "1.3.0", example("1.3.0"))
    registry.yank(MODEL, "1.3.0")
    registry.order(third)
    victim.refuses(Reason.YANKED)
    victim.recovers()


def test_a_publishers_key_alone_brings_nothing_into_the_snapshot(victim: Victim) -> None:
    registry = victim.registry
    entry, target = evil(registry)
    forged = next_role(registry)
    signing.add_version(forged.signed, target)
    signing.sign(forged, [registry.publishers[ROLE]])
    path = f"/tuf/metadata/{forged.signed.version - 1}.{ROLE}.json"
    honest, registry.files[path] = registry.files[path], signing.to_bytes(forged)
    registry.order(entry)
    victim.refuses(Reason.METADATA_MISMATCH)
    registry.files[path] = honest
    victim.recovers()


def test_a_publishers_key_says_nothing_about_another_model(victim: Victim) -> None:
    """Not by signing the other's role, nor by listing the other's version in its own."""
    registry = victim.registry
    registry.publish("other", "1.0.0", example("1.0.0"))
    entry, target = evil(registry)
    honest = registry.roles[ROLE]
    forged = next_role(registry)
    signing.add_version(forged.signed, target)
    signing.sign(forged, [registry.publishers["models-other"]])
    serve(registry, ROLE, forged)
    registry.roles[ROLE] = forged
    registry.seal()
    registry.order(entry)
    victim.refuses(Reason.METADATA_UNSIGNED)
    registry.roles[ROLE] = honest
    honest.signed.version = forged.signed.version
    registry.amend(MODEL)
    registry.amend("other", lambda role: signing.add_version(role, target))
    registry.order(entry)
    victim.refuses(Reason.TARGET_UNKNOWN)
    victim.recovers()


def test_a_stolen_server_installs_nothing_and_breaks_nothing(victim: Victim) -> None:
    """The thief holds the database, the online key, the director's key and all that is served."""
    registry = victim.registry
    entry, target = evil(registry)
    honest = registry.roles[ROLE]
    # 1. a version of the thief's, in a role of the thief's
    forged = next_role(registry)
    signing.add_version(forged.signed, target)
    signing.sign(forged, [*registry.signers["online"], CryptoSigner.generate_ed25519()])
    serve(registry, ROLE, forged)
    registry.roles[ROLE] = forged
    registry.seal()
    registry.order(entry)
    victim.refuses(Reason.METADATA_UNSIGNED)
    # 2. the same without the role
    registry.roles[ROLE] = honest
    honest.signed.version = forged.signed.version
    registry.amend(MODEL)
    registry.order(entry)
    victim.refuses(Reason.TARGET_UNKNOWN)
    # 3. another manifest in a signed version's place
    folder, _, name = victim.new.target.rpartition("/")
    manifest = f"/tuf/targets/{folder}/{victim.new.sha256}.{name}"
    kept = registry.files[manifest]
    registry.files[manifest] = kept.replace(b"1.1.0", b"1.1.1")
    registry.order(victim.new)
    victim.refuses(Reason.TARGET_MISMATCH)
    registry.files[manifest] = kept
    # 4. other bytes in the place of its file
    blob = f"/blobs/{sha256_hex(example('1.1.0')['model.onnx'])}"
    kept = registry.files[blob]
    registry.files[blob] = example("1.2.0")["model.onnx"].ljust(len(kept), b"\0")[: len(kept)]
    registry.order(victim.new)
    victim.refuses(Reason.BLOB_MISMATCH)
    registry.files[blob] = kept
    victim.recovers()

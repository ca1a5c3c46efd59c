"""The people with the offline keys, for tests: a key ceremony and a publisher, in memory.

They only write signed documents; handing them in is `registry.py`'s, by call or by HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Metadata, Root, Targets

from pilotwave_protocol import dsse, signing
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.manifest import FileEntry, Variant, VersionManifest
from pilotwave_protocol.signing import RoleKeys
from pilotwave_protocol.trust import DirectorKeys, VersionTarget

Document = dict[str, Any]


def new_key() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


def publics(signers: Iterable[CryptoSigner]) -> tuple[Key, ...]:
    return tuple(signer.public_key for signer in signers)


def director_of(fleet: str, raw_keys: Sequence[str], threshold: int = 1) -> DirectorKeys:
    keys = [Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw)) for raw in raw_keys]
    return DirectorKeys(fleet, {dsse.keyid(key): key for key in keys}, threshold)


def manifest_for(
    model: str, version: str, counter: int, files: Mapping[str, bytes], **variant: Any
) -> VersionManifest:
    """A manifest of one variant; its entry point is the first file."""
    entries = tuple(FileEntry(p, len(data), sha256_hex(data)) for p, data in files.items())
    fields = {
        "name": "onnx-fp32",
        "runtime": "onnxruntime",
        "format": "onnx",
        "entrypoint": next(iter(files)),
        **variant,
    }
    return VersionManifest(model, version, counter, (Variant(files=entries, **fields),))


@dataclass
class Offline:
    """The keys that no server ever sees, and what their holders sign."""

    fleet: str
    clock: Callable[[], datetime]
    root_keys: list[CryptoSigner] = field(default_factory=lambda: [new_key() for _ in range(3)])
    targets_keys: list[CryptoSigner] = field(default_factory=lambda: [new_key() for _ in range(3)])
    publishers: dict[str, CryptoSigner] = field(default_factory=dict)
    threshold: int = 2

    def root_roles(self, online: Sequence[Key]) -> dict[str, RoleKeys]:
        return {
            "root": RoleKeys(publics(self.root_keys), self.threshold),
            "targets": RoleKeys(publics(self.targets_keys), self.threshold),
            "snapshot": RoleKeys(tuple(online), 1),
            "timestamp": RoleKeys(tuple(online), 1),
        }

    def first_root(self, online: Sequence[Key]) -> Metadata[Root]:
        root = signing.make_root(self.root_roles(online), now=self.clock())
        return signing.sign(root, self.root_keys[: self.threshold])

    def first_targets(self, directors: Sequence[str]) -> Metadata[Targets]:
        targets = signing.make_targets(director_of(self.fleet, directors), now=self.clock())
        return signing.sign(targets, self.targets_keys[: self.threshold])

    def next_root(self, current: Metadata[Root], online: Sequence[Key]) -> Metadata[Root]:
        """The next root with the keys as they are held now; sign it with `signing.sign`."""
        root = signing.next_version_of(current, now=self.clock(), lifetime=signing.ROOT_LIFETIME)
        for role, holders in self.root_roles(online).items():
            signing.set_role_keys(root.signed, role, holders)
        return root

    def next_targets(self, current: Metadata[Targets]) -> Metadata[Targets]:
        return signing.next_version_of(current, now=self.clock(), lifetime=signing.TARGETS_LIFETIME)

    def next_role(self, current: Metadata[Targets]) -> Metadata[Targets]:
        return signing.next_version_of(current, now=self.clock(), lifetime=signing.ROLE_LIFETIME)

    def sign_targets(self, targets: Metadata[Targets]) -> Metadata[Targets]:
        return signing.sign(targets, self.targets_keys[: self.threshold])

    def delegated(
        self, current: Metadata[Targets], model: str
    ) -> tuple[Metadata[Targets], Metadata[Targets]]:
        """The next targets, which delegates to a new model, and the first document of its role."""
        publisher = self.publishers.setdefault(model, new_key())
        targets = self.next_targets(current)
        signing.delegate(targets.signed, model, RoleKeys(publics([publisher]), 1))
        role = signing.make_role(model, now=self.clock())
        return self.sign_targets(targets), signing.sign(role, [publisher])

    def with_version(
        self, current: Metadata[Targets], manifest: VersionManifest, *, unsafe: bool = False
    ) -> Metadata[Targets]:
        """The next document of a model's role with one version more, unsigned."""
        role = self.next_role(current)
        raw = manifest.to_bytes()
        target = VersionTarget(
            manifest.model,
            manifest.version,
            sha256_hex(raw),
            len(raw),
            manifest.counter,
            unsafe or manifest.unsafe_format,
        )
        signing.add_version(role.signed, target)
        return role

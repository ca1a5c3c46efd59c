"""A thief of a server's keys, who signs the worst that they can sign and sits on devices' way."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from pilotwave_protocol import dsse, names, signing
from pilotwave_protocol.fields import MAX_INT, format_time
from pilotwave_protocol.messages.directive import DIRECTIVE_TYPE, Directive, Entry

FAR = datetime(9999, 12, 31, tzinfo=timezone.utc)
HUGE = 2**60
Forged = Callable[[str, str], bytes | None]


class Thief:
    """Reads keys once, as a thief does, and what the fleet's public documents say now."""

    def __init__(self, url: str, token: str, keys: Path) -> None:
        self._api = httpx.Client(
            base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
        self.online: Signer = signing.load_signer(_newest(keys, "online"))
        raw = load_pem_private_key(_newest(keys, "director").read_bytes(), None)
        assert isinstance(raw, Ed25519PrivateKey)
        self.director = raw

    def close(self) -> None:
        self._api.close()

    def document(self, role: str) -> bytes:
        return self._api.get(f"/trust/metadata/{role}").raise_for_status().content

    def orders(self, fleet: str, model: str, version: str) -> Forged:
        """The highest `seq` and `attempt` there are, for an old version, good for ever."""
        role: Metadata[Targets] = Metadata.from_bytes(self.document(names.role_for_model(model)))
        path = names.target_path(model, version)
        target = role.signed.targets[path]
        counter = target.custom["counter"]
        digest = target.hashes["sha256"]
        entry = Entry(model, version, path, digest, target.length, counter, "v", attempt=MAX_INT)
        now = datetime.now(timezone.utc)

        def forged(asked: str, device: str) -> bytes | None:
            if asked != "/device/v1/directive":
                return None
            order = Directive(fleet, device, MAX_INT, now, FAR, 1, (entry,))
            return dsse.sign(DIRECTIVE_TYPE, order.to_bytes(), self.director)

        return forged

    def metadata(self, *, version: int, signed_at: datetime, expires: datetime) -> Forged:
        """A snapshot and a timestamp of this version over the roles as they are."""
        honest: Metadata[Snapshot] = Metadata.from_bytes(self.document("snapshot"))
        snapshot = Metadata(Snapshot(version=version, expires=expires, meta=honest.signed.meta))
        timestamp = Metadata(
            Timestamp(
                version=version,
                expires=expires,
                snapshot_meta=MetaFile(version),
                unrecognized_fields={"signed_at": format_time(signed_at)},
            )
        )
        files = {}
        for name, md in ((f"{version}.snapshot", snapshot), ("timestamp", timestamp)):
            signing.sign(md, [self.online])
            files[f"/tuf/metadata/{name}.json"] = signing.to_bytes(md)
        return lambda asked, device: files.get(asked)

    def root(self, keys: Path) -> Forged:
        """The next root, with every role for the thief, signed by one stolen root key."""
        root: Metadata[Root] = Metadata.from_bytes(self.document("root"))
        life = timedelta(days=365)
        own = signing.next_version_of(root, now=datetime.now(timezone.utc), lifetime=life)
        for role in ("root", "targets", "snapshot", "timestamp"):
            signing.set_role_keys(own.signed, role, signing.RoleKeys((self.online.public_key,), 1))
        signing.sign(own, [signing.load_signer(keys / "root-1.pem"), self.online])
        path = f"/tuf/metadata/{own.signed.version}.root.json"
        return lambda asked, device: signing.to_bytes(own) if asked == path else None


def together(*forgers: Forged) -> Forged:
    """Answer with the first that forges."""

    def forged(asked: str, device: str) -> bytes | None:
        return next((found for f in forgers if (found := f(asked, device)) is not None), None)

    return forged


def _newest(keys: Path, kind: str) -> Path:
    found = sorted(keys.glob(f"{kind}-*.pem"), key=lambda p: int(p.stem.partition("-")[2]))
    return found[-1]


def version_of(document: bytes) -> int:
    """The version that a document says it is."""
    return int(json.loads(document)["signed"]["version"])

"""Who this device is: its private key, the fleet it joined, the numbers of its check-ins."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pilotwave_agent.host.disk import Disk
from pilotwave_agent.host.layout import Layout
from pilotwave_protocol import dsse, names, strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadJson, PilotwaveError, ProtocolError
from pilotwave_protocol.fields import Fields
from pilotwave_protocol.messages.enrol import EnrolReply

ENROL = "`pilotwave-agent enrol --server URL --name NAME --root root.json --data DIR`"
_MAX_BYTES = 16 << 10
_LONGEST_S = 3600  # until the first check-in is answered; nobody signed what is in the file


class BadIdentity(ProtocolError):
    """A file of the device's identity is missing, unreadable or not what it should be."""

    code = "bad_identity"


class NotEnrolled(PilotwaveError):
    """This data folder holds no enrolled device yet."""

    code = "not_enrolled"


@dataclass(frozen=True)
class Identity:
    """An enrolled (or still pending) device."""

    device: str
    fleet: str
    key: Ed25519PrivateKey
    root: bytes
    poll_interval_s: int
    check_in_interval_s: int


def make_key(disk: Disk, path: Path) -> Ed25519PrivateKey:
    """Return the key at `path`, made now if there is none. It never leaves this device."""
    if disk.size(path) is not None:
        disk.sync_file(path)  # the server is to know no key that a power cut could take away
        return load_key(path)
    disk.make_dirs(path.parent)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    disk.write_atomic(path, pem, 0o600)
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """Read the device's key, or raise `BadIdentity` with what to do."""
    try:
        found = path.lstat()
        raw = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
    except FileNotFoundError as e:
        raise NotEnrolled(f"{path}: no device key; run {ENROL} first") from e
    except OSError as e:
        raise BadIdentity(f"{path}: the device key cannot be read: {e.strerror}") from e
    if not stat.S_ISREG(found.st_mode):
        raise BadIdentity(f"{path}: expected a file of its own; this is a link or something else")
    if found.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        raise BadIdentity(f"{path}: the device key is another user's (uid {found.st_uid})")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise BadIdentity(f"{path}: others may read the device key; run: chmod 600 {path}")
    try:
        key = load_pem_private_key(raw, None)
    except (ValueError, TypeError) as e:
        raise BadIdentity(f"{path}: expected an Ed25519 key in PEM; this is none") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise BadIdentity(f"{path}: expected an Ed25519 key; this is of another kind")
    return key


def public_hex(key: Ed25519PrivateKey) -> str:
    """Return the public half as 64 hex digits."""
    return dsse.raw_public(key.public_key()).hex()


def key_id(key: Ed25519PrivateKey) -> str:
    """Return the SHA-256 of the public half, which operators compare with what the page shows."""
    return dsse.keyid(key.public_key())


def keep_enrolment(disk: Disk, layout: Layout, reply: EnrolReply) -> None:
    """Remember what the server answered."""
    disk.write_atomic(layout.enrolled, strictjson.dumps(vars(reply)), 0o644)


def load(layout: Layout) -> Identity:
    """Read the identity. Raises `NotEnrolled` or `BadIdentity`, each saying what to do."""
    key = load_key(layout.key)
    try:
        raw = layout.enrolled.read_bytes()
        root = layout.pinned_root.read_bytes()
    except FileNotFoundError as e:
        raise NotEnrolled(f"{e.filename}: missing; run {ENROL} first") from e
    except OSError as e:
        raise BadIdentity(f"{e.filename}: cannot be read: {e.strerror}") from e
    f = Fields(strictjson.loads(raw, max_bytes=_MAX_BYTES), str(layout.enrolled), BadIdentity)
    return Identity(
        device=f.named("device", names.check_device),
        fleet=f.named("fleet", names.check_fleet),
        key=key,
        root=root,
        poll_interval_s=min(f.integer("poll_interval_s", low=1), _LONGEST_S),
        check_in_interval_s=min(f.integer("check_in_interval_s", low=1), _LONGEST_S),
    )


def check_root(raw: bytes, sha256: str | None) -> bytes:
    """Check a root document against its pinned digest, if one is given."""
    found = sha256_hex(raw)
    if sha256 is not None and found != sha256:
        raise BadIdentity(f"root: expected sha256 {sha256}; the server's first root has {found}")
    not_one = "root: expected a TUF root document, as `pilotwave keys init` writes it (root.json)"
    try:
        document = Fields(strictjson.loads(raw, max_bytes=512_000), "root", BadIdentity)
    except BadJson as e:
        raise BadIdentity(not_one) from e
    if document.inner("signed").raw("_type", None) != "root":
        raise BadIdentity(not_one)
    return raw

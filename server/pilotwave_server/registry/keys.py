"""The server's own keys: online (signs snapshot and timestamp) and director (signs directives).

They are kept in a key store, numbered in the order in which they were made: `online-1.pem`. Instead
of a PEM file there may be a key reference (`online-1.json`, see `signing.load_signer`), so that the
private half stays in a KMS or token. Which of them may sign is decided by root and by
`fleet/director`; here they are only made and found.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import Key, Signer, SSlibKey
from sqlalchemy.orm import Session

from pilotwave_protocol import dsse
from pilotwave_protocol.errors import SigningError
from pilotwave_protocol.signing import parse_signer, private_pem
from pilotwave_server.errors import SetupError
from pilotwave_server.keystore.port import KeyStore

Kind = Literal["online", "director"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_NAME = re.compile(r"(online|director)-([1-9][0-9]{0,5})\.(?:pem|json)")


class BadServerKey(SetupError):
    code = "bad_server_key"


@dataclass(frozen=True)
class ServerKey:
    """One key: the `number` rises with each one made."""

    kind: Kind
    number: int
    signer: Signer

    @property
    def public(self) -> Key:
        return self.signer.public_key

    @property
    def keyid(self) -> str:
        return self.public.keyid

    @property
    def raw(self) -> bytes:
        """The 32 bytes of an Ed25519 public key. Raises BadServerKey for another kind of key."""
        key = self.public
        if not isinstance(key, SSlibKey) or key.keytype != "ed25519":
            raise BadServerKey(f"{self.kind}-{self.number}: expected an Ed25519 key")
        return bytes.fromhex(key.keyval["public"])

    @cached_property
    def director_keyid(self) -> str:
        """The key's name in envelopes and in `fleet/director`."""
        return dsse.keyid(Ed25519PublicKey.from_public_bytes(self.raw))


def ensure_server_keys(keys: KeyStore, session: Session | None = None) -> None:
    """Make the first online and director key if there is none. Raises KeysUnusable."""
    for kind in KINDS:
        if not _numbered(keys, kind, session):
            _make(keys, kind, 1, session)


def stage_key(keys: KeyStore, kind: Kind, session: Session | None = None) -> ServerKey:
    """Make the next key of a kind, which nothing trusts yet, and return it."""
    number = max(_numbered(keys, kind, session), default=0) + 1
    while not _make(keys, kind, number, session):
        number += 1
    return next(key for key in load_keys(keys, kind, session) if key.number == number)


def load_keys(keys: KeyStore, kind: Kind, session: Session | None = None) -> list[ServerKey]:
    """All keys of a kind, the oldest first. Raises BadServerKey, KeysUnusable with what to do."""
    found = []
    for number, (name, data) in sorted(_numbered(keys, kind, session).items()):
        try:
            signer = parse_signer(Path(keys.where, name), data)
        except SigningError as error:
            raise BadServerKey(f"a key of this server cannot be used: {error}") from error
        found.append(ServerKey(kind, number, signer))
    return found


def _numbered(keys: KeyStore, kind: Kind, session: Session | None) -> dict[int, tuple[str, bytes]]:
    found = keys.read(f"{kind}-", session).items()
    matches = [(_NAME.fullmatch(name), name, data) for name, data in found]
    return {int(m.group(2)): (name, data) for m, name, data in matches if m}


def _make(keys: KeyStore, kind: Kind, number: int, session: Session | None) -> bool:
    """Make a key unless there is one of that number: of several that start together, one does."""
    return keys.add(f"{kind}-{number}.pem", private_pem(Ed25519PrivateKey.generate()), session)

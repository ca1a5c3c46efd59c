"""The server's own keys: online (signs snapshot and timestamp) and director (signs directives).

They are files in the data folder, numbered in the order in which they were made: `online-1.pem`.
Instead of a PEM file there may be a key reference (`online-1.json`, see `signing.load_signer`), so
that the private half stays in a KMS or token. Which of them may sign is decided by root and by
`fleet/director`; here they are only made and found.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Key, Signer, SSlibKey

from pilotwave_protocol import dsse
from pilotwave_protocol.errors import SigningError
from pilotwave_protocol.signing import generate_key, load_signer
from pilotwave_server.errors import SetupError

Kind = Literal["online", "director"]
_FILE = re.compile(r"(online|director)-([1-9][0-9]{0,5})\.(?:pem|json)")


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


def keys_dir(data_dir: Path) -> Path:
    return data_dir / "keys"


def ensure_server_keys(data_dir: Path) -> None:
    """Make the first online and director key if there is none. Raises SetupError."""
    folder = keys_dir(data_dir)
    with _locked(folder):
        for kind in ("online", "director"):
            if not _numbers(folder, kind):
                _make(folder, kind, 1)


def stage_key(data_dir: Path, kind: Kind) -> ServerKey:
    """Make the next key of a kind, which nothing trusts yet, and return it."""
    folder = keys_dir(data_dir)
    with _locked(folder):
        number = max(_numbers(folder, kind), default=0) + 1
        _make(folder, kind, number)
    return next(key for key in load_keys(data_dir, kind) if key.number == number)


def load_keys(data_dir: Path, kind: Kind) -> list[ServerKey]:
    """All keys of a kind, the oldest first. Raises BadServerKey with what to do."""
    found = []
    for number, path in sorted(_numbers(keys_dir(data_dir), kind).items()):
        try:
            found.append(ServerKey(kind, number, load_signer(path)))
        except SigningError as error:
            raise BadServerKey(f"a key of this server cannot be used: {error}") from error
    return found


def _numbers(folder: Path, kind: str) -> dict[int, Path]:
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return {}
    matches = [(_FILE.fullmatch(path.name), path) for path in paths]
    return {int(m.group(2)): path for m, path in matches if m and m.group(1) == kind}


def _make(folder: Path, kind: str, number: int) -> None:
    new = folder / f".{kind}.new"
    try:
        # Renamed when it is whole, so that a crash leaves no half a key under a key's name.
        new.unlink(missing_ok=True)
        generate_key(new)
        new.rename(folder / f"{kind}-{number}.pem")
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except (SigningError, OSError) as error:
        raise BadServerKey(f"the server's {kind} key cannot be made: {error}") from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process makes keys at a time; two that start together must agree on them."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadServerKey(
            f"the folder {folder} for the server's keys cannot be written: {error.strerror}"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

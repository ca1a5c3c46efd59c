"""The read token of a device: good for its own directive and its own blobs, for a few minutes.

    <key id>.<device>.<generation>.<expires>.<mac>       mac = HMAC-SHA256, 128 bits, base64url

A link has the same form, says the same of the device, and is good for one path alone: its mac is
over a space and the path too. Neither can be taken for the other, as no token holds a space.

Checking one takes no database and no table. Two keys are known at a time, so that the key can be
changed while the tokens made with the one before live on. The server's processes share the keys
through a file (mode 0600).
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import os
import secrets
import threading
import time
from pathlib import Path
from typing import ClassVar, NamedTuple

from pilotwave_server.errors import SetupError, Unauthorised

KEY_BYTES = 32
MAC_BYTES = 16
REREAD_S = 2.0
MAX_TOKEN = 256
NOT_A_TOKEN = "expected a device's read token; check in to get one"


class BadToken(Unauthorised):
    """Not a token that this fleet's server has given out."""

    code: ClassVar[str] = "bad_token"


class ExpiredToken(Unauthorised):
    """The device gets a new one by checking in."""

    code: ClassVar[str] = "expired_token"


class BadTokenKeys(SetupError):
    code = "bad_token_keys"


class Claim(NamedTuple):
    """What a token says. Unverified until `DeviceTokens.check` has seen it."""

    device: str
    generation: int
    expires: int


def peek_unverified(token: bytes) -> Claim:
    """Take a token apart without checking its mac. Raises `BadToken` for another form."""
    try:
        head, generation, expires, _ = token.rsplit(b".", 3)
        return Claim(head[head.index(b".") + 1 :].decode(), int(generation), int(expires))
    except ValueError:
        raise BadToken(NOT_A_TOKEN) from None


class DeviceTokens:
    """Makes and checks tokens with the keys in `path`, which is made if it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._reread_at = 0.0
        self._current = b""
        self._keys: dict[bytes, bytes] = {}
        if not path.exists():
            _write(path, _new_key(), {}, replace=False)
        self._read()

    def issue(self, device: str, generation: int, *, expires: int, path: str = "") -> str:
        """Return a token that is good until `expires` (seconds since 1970), for `path` alone if
        one is given."""
        body = b"%b.%b.%d.%d" % (self._current, device.encode(), generation, expires)
        return (body + b"." + _mac(self._keys[self._current], body + _scope(path))).decode()

    def check(self, token: bytes, *, now: float, path: str = "") -> Claim:
        """Return what a token (with `path`: a link) says, or raise `BadToken`, `ExpiredToken`."""
        body, _, mac = token.rpartition(b".")
        key = self._keys.get(body[: body.find(b".")])
        if key is None:
            key = self._unknown_key(token)
        if not hmac.compare_digest(_mac(key, body + _scope(path)), mac):
            raise BadToken("this token was not given out by this server")
        claim = peek_unverified(token)
        if claim.expires <= now:
            raise ExpiredToken("this token has expired: check in to get a new one")
        return claim

    def rotate(self) -> None:
        """Make a new key. Tokens made with the present one stay good, those before it do not."""
        with self._lock:
            kid, key = _new_key()
            _write(self._path, (kid, key), {self._current: self._keys[self._current]})
        self._read()

    def _unknown_key(self, token: bytes) -> bytes:
        """Another process may have changed the keys: read them again, but not at each bad token."""
        if len(token) <= MAX_TOKEN and time.monotonic() >= self._reread_at:
            self._reread_at = time.monotonic() + REREAD_S
            self._read()
        key = self._keys.get(token.partition(b".")[0])
        if key is None:
            raise BadToken(NOT_A_TOKEN)
        return key

    def _read(self) -> None:
        try:
            found = json.loads(self._path.read_text())
            keys = {kid.encode(): bytes.fromhex(key) for kid, key in found["keys"].items()}
            current = found["current"].encode()
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise BadTokenKeys(
                f"the device token keys cannot be read: restore {self._path}, or remove it so that "
                f"new ones are made (devices then check in again): {type(error).__name__}"
            ) from error
        if current not in keys or any(len(key) != KEY_BYTES for key in keys.values()):
            raise BadTokenKeys(f"{self._path} does not hold the keys it should: remove it")
        self._keys, self._current = keys, current


def _scope(path: str) -> bytes:
    return b" " + path.encode() if path else b""


def _mac(key: bytes, body: bytes) -> bytes:
    digest = hmac.digest(key, body, "sha256")
    return base64.urlsafe_b64encode(digest[:MAC_BYTES])[:-2]


def _new_key() -> tuple[bytes, bytes]:
    return secrets.token_hex(2).encode(), secrets.token_bytes(KEY_BYTES)


def _write(
    path: Path, current: tuple[bytes, bytes], others: dict[bytes, bytes], *, replace: bool = True
) -> None:
    keys = {kid.decode(): key.hex() for kid, key in {**others, current[0]: current[1]}.items()}
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"current": current[0].decode(), "keys": keys}, file)
        file.flush()
        os.fsync(file.fileno())
    if replace:
        temporary.replace(path)
        return
    # a link never replaces: of several processes that start at once, one makes the keys
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()

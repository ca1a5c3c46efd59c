"""The read token of a device: good for its own directive and its own blobs, for a few minutes.

    <key id>.<device>.<generation>.<expires>.<mac>       mac = HMAC-SHA256, 128 bits, base64url

A link has the same form, says the same of the device, and is good for one path alone: its mac is
over a space and the path too. Neither can be taken for the other, as no token holds a space.

Checking one takes no database and no table. Two keys are known at a time, so that the key can be
changed while the tokens made with the one before live on. The server's processes, and several
hosts, share them through the key store.
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import time
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from pilotwave_server.errors import SetupError, Unauthorised
from pilotwave_server.keystore.port import KeyStore

NAME = "device-tokens.json"
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
    """Makes and checks tokens with the keys under `NAME`, which are made if they are not there."""

    def __init__(self, keys: KeyStore) -> None:
        self._store = keys
        self._wake_at = 0.0
        # told of a token made with a key that is not known here; has to be quick
        self.on_unknown: Callable[[], object] = lambda: None
        if not keys.read(NAME):
            # of several processes that start at once, one makes them
            keys.add(NAME, _written(_new_key(), {}))
        self._keys = read_token_keys(keys)

    def issue(self, device: str, generation: int, *, expires: int, path: str = "") -> str:
        """Return a token that is good until `expires` (seconds since 1970), for `path` alone if
        one is given."""
        current, keys = self._keys
        body = b"%b.%b.%d.%d" % (current, device.encode(), generation, expires)
        return (body + b"." + _mac(keys[current], body + _scope(path))).decode()

    def check(self, token: bytes, *, now: float, path: str = "") -> Claim:
        """Return what a token (with `path`: a link) says, or raise `BadToken`, `ExpiredToken`."""
        body, _, mac = token.rpartition(b".")
        key = self._keys.by_id.get(body[: body.find(b".")])
        if key is None:
            raise self._unknown_key(token)
        if not hmac.compare_digest(_mac(key, body + _scope(path)), mac):
            raise BadToken("this token was not given out by this server")
        claim = peek_unverified(token)
        if claim.expires <= now:
            raise ExpiredToken("this token has expired: check in to get a new one")
        return claim

    def reread(self) -> None:
        """Take over what another process changed. Raises `BadTokenKeys`, KeysUnusable."""
        self._keys = read_token_keys(self._store)

    def _unknown_key(self, token: bytes) -> BadToken:
        """Another process may have changed the keys: have them read again, soon and elsewhere, as
        here nothing may wait for a disk or a database. Devices check in and get another token."""
        if len(token) <= MAX_TOKEN and time.monotonic() >= self._wake_at:
            self._wake_at = time.monotonic() + REREAD_S
            self.on_unknown()
        return BadToken(NOT_A_TOKEN)


class TokenKeys(NamedTuple):
    """The keys by their ids, and the id of the one with which tokens are made."""

    current: bytes
    by_id: dict[bytes, bytes]


def read_token_keys(store: KeyStore) -> TokenKeys:
    """Read them; `BadTokenKeys`, KeysUnusable."""
    try:
        found = json.loads(store.read(NAME)[NAME])
        keys = {kid.encode(): bytes.fromhex(key) for kid, key in found["keys"].items()}
        read = TokenKeys(found["current"].encode(), keys)
        if read.current in keys and all(len(key) == KEY_BYTES for key in keys.values()):
            return read
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise BadTokenKeys(
        f"the keys of device tokens cannot be read: restore {NAME} in {store.where}, or run "
        "`pilotwave-server keys new-token-key --stolen`; devices then check in again"
    )


def new_token_key(store: KeyStore, *, stolen: bool = False) -> None:
    """Make a new key. Tokens made with the present one stay good, unless it was stolen; those
    before it do not."""
    others = {}
    if not stolen:
        present = read_token_keys(store)
        others = {present.current: present.by_id[present.current]}
    store.replace(NAME, _written(_new_key(), others))


def _scope(path: str) -> bytes:
    return b" " + path.encode() if path else b""


def _mac(key: bytes, body: bytes) -> bytes:
    digest = hmac.digest(key, body, "sha256")
    return base64.urlsafe_b64encode(digest[:MAC_BYTES])[:-2]


def _new_key() -> tuple[bytes, bytes]:
    return secrets.token_hex(2).encode(), secrets.token_bytes(KEY_BYTES)


def _written(current: tuple[bytes, bytes], others: dict[bytes, bytes]) -> bytes:
    keys = {kid.decode(): key.hex() for kid, key in {**others, current[0]: current[1]}.items()}
    return json.dumps({"current": current[0].decode(), "keys": keys}).encode()

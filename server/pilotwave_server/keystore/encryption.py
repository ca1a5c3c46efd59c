"""The key that encrypts the server's keys in the database: where it comes from, what it does.

    <1> <12 bytes of nonce> <AES-256-GCM of the key, which names it as associated data>

The name is part of what is authenticated: whoever can write the table cannot put one key in the
place of another.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import shlex
import subprocess
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pilotwave_server.errors import BadSetting
from pilotwave_server.keystore.port import KeysUnusable
from pilotwave_server.settings import Settings

KEY_BYTES, NONCE_BYTES = 32, 12
FORM = b"\1"
COMMAND_S = 30
NAMES = ("key_encryption_key", "key_encryption_key_file", "key_encryption_key_command")
EXPECTED = f"expected {KEY_BYTES} bytes in base64, as `openssl rand -base64 {KEY_BYTES}` makes"


class KeyEncryption:
    """Encrypts and decrypts by one key-encryption key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, name: str, data: bytes) -> bytes:
        nonce = secrets.token_bytes(NONCE_BYTES)
        return FORM + nonce + self._cipher.encrypt(nonce, data, FORM + name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """Raises KeysUnusable where it is not what this key sealed under this name."""
        form, nonce, rest = sealed[:1], sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            if form == FORM:
                return self._cipher.decrypt(nonce, rest, FORM + name.encode())
        except (InvalidTag, ValueError):
            pass
        raise KeysUnusable(
            f"the server's key {name} in the database was encrypted with another key than the "
            "one set here: set the key-encryption key that the other hosts of this fleet have, or "
            "restore the table server_keys"
        )


def key_encryption(settings: Settings) -> KeyEncryption | None:
    """What encrypts by the key that is set; None where none is. BadSetting."""
    given = [name for name in NAMES if getattr(settings, name)]
    if not given:
        return None
    if len(given) > 1:
        raise BadSetting(f"{_variable(given[0])} and {_variable(given[1])}: set one of them")
    name = given[0]
    match name:
        case "key_encryption_key":
            text = settings.key_encryption_key
        case "key_encryption_key_file":
            text = _read(Path(settings.key_encryption_key_file))
        case _:
            text = _ask(settings.key_encryption_key_command)
    return KeyEncryption(parse_key(text, _variable(name)))


def key_file_encryption(path: Path) -> KeyEncryption:
    """What encrypts by the key in a file. BadSetting."""
    return KeyEncryption(parse_key(_read(path), str(path)))


def parse_key(text: str, where: str) -> bytes:
    """A key as `openssl rand` prints it; BadSetting, which does not repeat it."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise BadSetting(f"{where}: {EXPECTED}; this is not base64") from None
    if len(key) != KEY_BYTES:
        raise BadSetting(f"{where}: {EXPECTED}; got {len(key)} bytes")
    return key


def _variable(name: str) -> str:
    return f"PILOTWAVE_{name.upper()}"


def _read(path: Path) -> str:
    try:
        return path.read_bytes()[:1024].decode("ascii")
    except OSError as error:
        raise BadSetting(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise BadSetting(f"{path}: {EXPECTED}") from None


def _ask(command: str) -> str:
    """What a command prints: it may ask a key management service."""
    variable = _variable("key_encryption_key_command")
    try:
        done = subprocess.run(
            shlex.split(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=COMMAND_S,
            check=False,
        )
    except (OSError, ValueError) as error:
        raise BadSetting(f"{variable}: cannot be run: {error}") from error
    except subprocess.TimeoutExpired:
        raise BadSetting(f"{variable}: printed no key within {COMMAND_S} s") from None
    if done.returncode != 0:
        raise BadSetting(f"{variable}: ended with status {done.returncode}")
    return done.stdout[:1024].decode("ascii", "replace")

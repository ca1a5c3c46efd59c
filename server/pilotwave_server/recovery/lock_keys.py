"""The server's own keys in a backup: locked with a passphrase.

Whoever has the backup and the passphrase is the server to its devices. Without it a backup holds no
key: scrypt makes guessing dear (64 MiB and about 0.2 s for each try), AES-256-GCM notices every
change.
"""

from __future__ import annotations

import json
import secrets
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from pilotwave_server.keystore.port import NAME
from pilotwave_server.recovery.archive import BackupUnusable

SCHEMA = "pilotwave/backup-keys/1"
COST, BLOCK, LANES = 2**16, 8, 1
MOST_BYTES = 4 * 1024 * 1024


def lock(keys: dict[str, bytes], passphrase: str) -> bytes:
    """Return what only the passphrase opens."""
    salt, nonce = secrets.token_bytes(16), secrets.token_bytes(12)
    plain = json.dumps({name: _text(data) for name, data in keys.items()}).encode()
    locked = AESGCM(_key(passphrase, salt)).encrypt(nonce, plain, SCHEMA.encode())
    found = {"salt": _text(salt), "nonce": _text(nonce), "locked": _text(locked)}
    return json.dumps({"schema": SCHEMA, **found}, indent=1).encode()


def unlock(document: bytes, passphrase: str) -> dict[str, bytes]:
    """Return the files. Raises BackupUnusable."""
    try:
        found = json.loads(document)
        if found["schema"] != SCHEMA:
            raise BackupUnusable(f"keys: expected {SCHEMA}; got {ascii(found['schema'])[:60]}")
        salt, nonce, locked = (b64decode(found[n]) for n in ("salt", "nonce", "locked"))
        plain = AESGCM(_key(passphrase, salt)).decrypt(nonce, locked, SCHEMA.encode())
        keys = {str(name): b64decode(data) for name, data in json.loads(plain).items()}
    except InvalidTag:
        raise BackupUnusable(
            "the keys in this backup do not open: another passphrase locked them, or they were "
            "changed"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupUnusable(f"the keys in this backup cannot be read: {error}") from error
    if bad := [name for name in keys if not NAME.fullmatch(name)]:
        raise BackupUnusable(f"the keys in this backup have a file called {ascii(bad[0])[:60]}")
    return keys


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=COST, r=BLOCK, p=LANES).derive(passphrase.encode())


def _text(data: bytes) -> str:
    return b64encode(data).decode()

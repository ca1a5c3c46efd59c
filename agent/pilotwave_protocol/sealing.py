"""Seal bytes for the holder of one key: HPKE (RFC 9180) in base mode, DHKEM(X25519), HKDF-SHA256,
ChaCha20Poly1305. Who sealed them it does not prove; a signature around them does.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pilotwave_protocol.errors import SealingError


def sealed_about(fleet: str, device: str, wish: int) -> bytes:
    """Return what ties sealed diagnostics to their device and wish (`about`)."""
    return f"pilotwave/diagnostics/1 {fleet} {device} {wish}".encode()


def public_hex(key: X25519PrivateKey) -> str:
    """Return a key's public half as 64 hex digits."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def seal(plain: bytes, reader: str, *, about: bytes) -> bytes:
    """Seal for the reader with this public key (64 hex digits). `about` must be the same when it is
    opened. Raises `SealingError`."""
    try:
        key = X25519PublicKey.from_public_bytes(bytes.fromhex(reader))
        return bytes(_suite().encrypt(plain, key, info=about))
    except ValueError as e:  # a point of small order: nothing would be secret
        raise SealingError("expected an X25519 key as 64 hex digits") from e


def unseal(sealed: bytes, key: X25519PrivateKey, *, about: bytes) -> bytes:
    """Open what was sealed for this key, or raise `SealingError`."""
    from cryptography.exceptions import InvalidTag

    try:
        return bytes(_suite().decrypt(sealed, key, info=about))
    except (InvalidTag, ValueError) as e:
        raise SealingError("it was sealed for another key, or is damaged") from e


def _suite() -> Any:
    try:
        from cryptography.hazmat.primitives import hpke
    except ImportError as e:
        raise SealingError("the installed package cryptography has no HPKE: 47 or later has") from e
    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)

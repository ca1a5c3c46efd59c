"""Masks: the key streams of ChaCha20 (RFC 8439) under keys that HKDF-SHA256 makes.

Two devices that exchange their mask keys have one stream: the one adds it, the other takes it away.
A group's digest is in each key, so no stream serves twice.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.masked.fixed_point import FixedPoint, Whole


def self_mask(seed: bytes, form: FixedPoint, *, group: str) -> Whole:
    """The mask that a device adds to its own numbers."""
    return _stream(seed, f"pilotwave/masked/self {group}", form)


def pair_mask(own: X25519PrivateKey, other: str, form: FixedPoint, *, group: str) -> Whole:
    """The mask that two devices have in common, of one's key and the other's public one."""
    return _stream(agree(own, other), f"pilotwave/masked/pair {group}", form)


def agree(own: X25519PrivateKey, other: str) -> bytes:
    """Return what two keys have in common, or raise `BadMessage`: with a point of small order that
    is known to everybody (RFC 7748, section 6.1)."""
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(other)))
    except ValueError as e:
        raise BadMessage("expected an X25519 key as 64 hex digits, of no small order") from e


def _stream(secret: bytes, about: str, form: FixedPoint) -> Whole:
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=about.encode()).derive(secret)
    encryptor = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    return np.frombuffer(encryptor.update(bytes(form.size)), form.dtype)

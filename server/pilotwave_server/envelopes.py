"""Say whether a device's key signed an envelope, with libsodium: the server asks this of every
check-in, and libsodium takes half of the time of OpenSSL, which everything else is checked with.
"""

from __future__ import annotations

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.dsse import Unverified, pae

SIGNATURE_BYTES = 64


def is_signed_by(claimed: Unverified, *, payload_type: str, public: bytes) -> bool:
    """Say whether the key of these 32 raw bytes signed it. Raises ValueError for bytes of another
    length."""
    name = sha256_hex(public)
    key, message = VerifyKey(public), pae(payload_type, claimed.payload)
    return any(_is_good(key, sig, message) for of, sig in claimed.signatures if of == name)


def _is_good(key: VerifyKey, sig: bytes, message: bytes) -> bool:
    if len(sig) != SIGNATURE_BYTES:
        return False
    try:
        key.verify(message, sig)
    except BadSignatureError:
        return False
    return True

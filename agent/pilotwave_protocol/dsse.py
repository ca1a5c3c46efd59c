"""A strict profile of DSSE (Dead Simple Signing Envelope v1) with Ed25519.

Directives go down and check-ins go up in the same envelope. Exactly the verified bytes are handed
on for parsing. A key's id is the SHA-256 of its 32 raw public bytes.
Source: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pilotwave_protocol import strictjson
from pilotwave_protocol.digest import sha256_hex
from pilotwave_protocol.errors import BadEnvelope, BadJson, WrongKey

MAX_SIGNATURES = 8


class Signature(NamedTuple):
    """A signature, and the id of the key that it says it is by."""

    keyid: str
    sig: bytes


class Unverified(NamedTuple):
    """What an envelope claims. Nothing in it may be acted on, except to look a key up."""

    payload: bytes
    signatures: tuple[Signature, ...]


def raw_public(key: Ed25519PublicKey) -> bytes:
    """Return the 32 raw bytes of a public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def keyid(key: Ed25519PublicKey) -> str:
    """Return a key's id: the SHA-256 of its 32 raw bytes, in hex."""
    return sha256_hex(raw_public(key))


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return the pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return an envelope over `payload`, signed by `key`."""
    signature = key.sign(pae(payload_type, payload))
    return wrap(payload_type, payload, [(keyid(key.public_key()), signature)])


def wrap(payload_type: str, payload: bytes, signatures: list[tuple[str, bytes]]) -> bytes:
    """Return an envelope with signatures that were made elsewhere (an HSM, a KMS)."""
    return strictjson.dumps(
        {
            "payloadType": payload_type,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [
                {"keyid": name, "sig": base64.b64encode(sig).decode()} for name, sig in signatures
            ],
        }
    )


def _decode(text: object) -> bytes:
    if not isinstance(text, str):
        raise BadEnvelope("expected base64 text")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as e:
        raise BadEnvelope("expected base64 text") from e


def _signature(item: Any) -> Signature:
    if not isinstance(item, dict) or set(item) != {"keyid", "sig"}:
        raise BadEnvelope("expected signatures of exactly keyid and sig")
    if not isinstance(item["keyid"], str):
        raise BadEnvelope("expected keyid to be text")
    return Signature(item["keyid"], _decode(item["sig"]))


def peek_unverified(raw: bytes, *, payload_type: str, max_bytes: int) -> Unverified:
    """Take an envelope apart without checking a signature."""
    try:
        found = strictjson.loads(raw, max_bytes=max_bytes, max_depth=4)
    except BadJson as e:
        raise BadEnvelope(f"not an envelope: {e}") from e
    if not isinstance(found, dict) or set(found) != {"payloadType", "payload", "signatures"}:
        raise BadEnvelope("expected exactly payloadType, payload and signatures")
    if found["payloadType"] != payload_type:
        raise BadEnvelope(
            f"expected payload type {payload_type}; got {ascii(found['payloadType'])[:90]}"
        )
    items = found["signatures"]
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_SIGNATURES:
        raise BadEnvelope(f"expected 1 to {MAX_SIGNATURES} signatures")
    return Unverified(_decode(found["payload"]), tuple(_signature(item) for item in items))


def open_envelope(
    raw: bytes,
    *,
    payload_type: str,
    keys: Mapping[str, Ed25519PublicKey],
    threshold: int = 1,
    max_bytes: int,
) -> bytes:
    """Return the payload if at least `threshold` distinct keys of `keys` have signed it.

    Raises `BadEnvelope` for a malformed one and `WrongKey` for one that is not signed well enough.
    """
    claimed = peek_unverified(raw, payload_type=payload_type, max_bytes=max_bytes)
    return verified(claimed, payload_type=payload_type, keys=keys, threshold=threshold)


def signers(
    claimed: Unverified, *, payload_type: str, keys: Mapping[str, Ed25519PublicKey]
) -> frozenset[str]:
    """Return the ids of the keys among `keys` that have signed it."""
    message = pae(payload_type, claimed.payload)
    signed = (s for s in claimed.signatures if s.keyid in keys)
    return frozenset(s.keyid for s in signed if _is_good(keys[s.keyid], s.sig, message))


def verified(
    claimed: Unverified,
    *,
    payload_type: str,
    keys: Mapping[str, Ed25519PublicKey],
    threshold: int = 1,
) -> bytes:
    """`open_envelope` for one that was taken apart already, to find out whose keys to look for."""
    if threshold < 1:
        raise ValueError("a threshold is at least 1")
    found = signers(claimed, payload_type=payload_type, keys=keys)
    good = {raw_public(keys[name]) for name in found}
    if len(good) < threshold:
        raise WrongKey(f"expected {threshold} valid signature(s) by known keys; got {len(good)}")
    return claimed.payload


def _is_good(key: Ed25519PublicKey, sig: bytes, message: bytes) -> bool:
    try:
        key.verify(sig, message)
    except InvalidSignature:
        return False
    return True

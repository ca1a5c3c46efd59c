"""Who signed a report: the same answer as the library that devices sign with would give."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.digest import sha256_hex
from pilotwave_server.envelopes import is_signed_by

KIND = "application/vnd.pilotwave.check-in.v1+json"
KEY = Ed25519PrivateKey.generate()
PUBLIC = dsse.raw_public(KEY.public_key())
ORDER = 2**252 + 27742317777372353535851937790883648493


def says(payload: bytes, *signatures: bytes, public: bytes = PUBLIC) -> bool:
    """Whether an envelope with these signatures under the key's id counts as signed by it."""
    raw = dsse.wrap(KIND, payload, [(dsse.keyid(KEY.public_key()), s) for s in signatures])
    claimed = dsse.peek_unverified(raw, payload_type=KIND, max_bytes=10_000)
    return is_signed_by(claimed, payload_type=KIND, public=public)


def signed(payload: bytes, kind: str = KIND) -> bytes:
    return KEY.sign(dsse.pae(kind, payload))


def test_the_devices_own_signature_is_good() -> None:
    assert says(b"payload", signed(b"payload"))


def test_one_good_signature_beside_a_bad_one_is_enough() -> None:
    assert says(b"payload", bytes(64), signed(b"payload"))


def test_another_payload_or_type_is_not_what_was_signed() -> None:
    assert not says(b"payload", signed(b"Payload"))
    assert not says(b"payload", signed(b"payload", "application/json"))


@pytest.mark.parametrize("size", [0, 1, 63, 65, 128])
def test_a_signature_of_another_size_is_none(size: int) -> None:
    assert not says(b"payload", (signed(b"payload") * 2)[:size])


def test_a_good_signature_written_in_a_second_way_is_refused() -> None:
    """Adding the group's order to its second half changes nothing in the equation (RFC 8032)."""
    good = signed(b"payload")
    other = good[:32] + (int.from_bytes(good[32:], "little") + ORDER).to_bytes(32, "little")
    assert not says(b"payload", other)


def test_a_keyid_of_another_key_is_not_looked_at() -> None:
    other = Ed25519PrivateKey.generate()
    envelope = json.loads(dsse.sign(KIND, b"payload", KEY))
    envelope["signatures"][0]["keyid"] = dsse.keyid(other.public_key())
    claimed = dsse.peek_unverified(
        json.dumps(envelope).encode(), payload_type=KIND, max_bytes=10_000
    )
    assert not is_signed_by(claimed, payload_type=KIND, public=PUBLIC)


def test_a_key_that_everybody_could_sign_for_signs_nothing() -> None:
    """The neutral point as a key, and as R with S = 0, satisfies the equation for any payload."""
    neutral = b"\x01" + bytes(31)
    raw = dsse.wrap(KIND, b"payload", [(sha256_hex(neutral), neutral + bytes(32))])
    claimed = dsse.peek_unverified(raw, payload_type=KIND, max_bytes=10_000)
    assert not is_signed_by(claimed, payload_type=KIND, public=neutral)


def test_bytes_that_are_no_key_are_an_error() -> None:
    with pytest.raises(ValueError, match="32"):
        says(b"payload", signed(b"payload"), public=PUBLIC[:31])

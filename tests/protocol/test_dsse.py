"""Envelopes: only what a trusted key has signed comes out, byte for byte."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_protocol import dsse
from pilotwave_protocol.errors import BadEnvelope, WrongKey

KIND = "application/vnd.pilotwave.directive.v1+json"
KEY = Ed25519PrivateKey.generate()
OTHER = Ed25519PrivateKey.generate()
KEYS = {dsse.keyid(KEY.public_key()): KEY.public_key()}


def open_it(raw: bytes, threshold: int = 1) -> bytes:
    return dsse.open_envelope(
        raw, payload_type=KIND, keys=KEYS, threshold=threshold, max_bytes=10_000
    )


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(dsse.sign(KIND, b"payload", KEY)), **fields}).encode()


@given(st.binary(max_size=300))
def test_a_signed_payload_comes_out_byte_for_byte(payload: bytes) -> None:
    assert open_it(dsse.sign(KIND, payload, KEY)) == payload


def test_the_signed_bytes_are_those_of_the_specification() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == expected


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(WrongKey):
        open_it(dsse.sign(KIND, b"payload", OTHER))


def test_a_known_keyid_over_another_keys_signature_is_refused() -> None:
    forged = json.loads(dsse.sign(KIND, b"payload", OTHER))
    forged["signatures"][0]["keyid"] = dsse.keyid(KEY.public_key())
    with pytest.raises(WrongKey):
        open_it(json.dumps(forged).encode())


def test_one_key_signing_twice_counts_once() -> None:
    envelope = json.loads(dsse.sign(KIND, b"payload", KEY))
    envelope["signatures"] *= 2
    with pytest.raises(WrongKey):
        open_it(json.dumps(envelope).encode(), threshold=2)


@pytest.mark.parametrize(
    "raw",
    [
        changed(payloadType="application/vnd.pilotwave.check-in.v1+json"),  # type confusion
        changed(payload="###"),
        changed(payload=7),
        changed(signatures=[]),
        changed(signatures=[{"keyid": "a", "sig": "AA=="}] * 9),
        changed(signatures=[{"keyid": "a"}]),
        changed(signatures=["x"]),
        changed(extra=1),
        b"[]",
        b"null",
        b"{}",
        b"x" * 20_000,
        b'{"payload":"","payload":"","payloadType":"","signatures":[]}',
    ],
)
def test_a_malformed_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(BadEnvelope):
        open_it(raw)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_never_changes_what_comes_out(place: int, flip: int) -> None:
    raw = bytearray(dsse.sign(KIND, b'{"seq":1}', KEY))
    raw[place % len(raw)] ^= flip
    try:
        assert open_it(bytes(raw)) == b'{"seq":1}'
    except BadEnvelope:
        pass


def test_a_signature_made_elsewhere_can_be_wrapped() -> None:
    signature = KEY.sign(dsse.pae(KIND, b"x"))
    raw = dsse.wrap(KIND, b"x", [(dsse.keyid(KEY.public_key()), signature)])
    assert open_it(raw) == b"x"
    assert base64.b64decode(json.loads(raw)["payload"]) == b"x"

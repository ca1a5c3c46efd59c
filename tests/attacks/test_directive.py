"""Attacks on the directive: what the director signs, and what is made to look like it.

Each is made on an agent and on a device of `pilotwave simulate`: there is one judge for both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse
from pilotwave_protocol.messages.check_in import CHECK_IN_TYPE
from pilotwave_protocol.messages.directive import DIRECTIVE_TYPE, Entry
from pilotwave_protocol.states import Reason
from tests.attacks.virtual import Believer


def payload_of(believer: Believer) -> bytes:
    """Return the bytes that the director signs for an honest order of 1.1.0."""
    believer.registry.order(believer.new)
    found = dsse.peek_unverified(
        believer.registry.directive, payload_type=DIRECTIVE_TYPE, max_bytes=1 << 20
    )
    return found.payload


def sign(believer: Believer, payload: bytes) -> None:
    registry = believer.registry
    registry.directive = dsse.sign(DIRECTIVE_TYPE, payload, registry.director)


def test_another_key_directs_nobody(believer: Believer) -> None:
    payload = payload_of(believer)
    stranger = Ed25519PrivateKey.generate()
    believer.registry.directive = dsse.sign(DIRECTIVE_TYPE, payload, stranger)
    believer.refuses(Reason.WRONG_KEY)
    believer.recovers()


def test_a_directive_of_another_type_is_no_directive(believer: Believer) -> None:
    payload, registry = payload_of(believer), believer.registry
    registry.directive = dsse.sign(CHECK_IN_TYPE, payload, registry.director)
    believer.refuses(Reason.BAD_ENVELOPE)
    believer.recovers()


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"fleet": "other"}, Reason.WRONG_FLEET), ({"device": "cam-2"}, Reason.WRONG_DEVICE)],
    ids=["fleet", "device"],
)
def test_what_is_meant_for_others_is_refused(
    believer: Believer, change: dict[str, str], reason: Reason
) -> None:
    registry = believer.registry
    registry.order(believer.new)
    registry.directive = registry.sign_directive((believer.new,), **change)
    believer.refuses(reason)
    believer.recovers()


def test_a_replayed_directive_is_refused(believer: Believer) -> None:
    """The order of an old version: once more what the director truly signed some time ago."""
    registry, replayed = believer.registry, believer.registry.directive
    believer.recovers()
    registry.directive = replayed
    believer.refuses(Reason.DIRECTIVE_REPLAYED)
    assert believer.runs() == "1.1.0"


def test_an_order_that_ended_before_the_newest_signature_is_refused(believer: Believer) -> None:
    """By the device's own clock it has six days to go; the timestamp proves that clock wrong."""
    registry = believer.registry
    registry.order(believer.new)
    registry.now += timedelta(days=10)
    registry.seal()
    believer.refuses(Reason.DIRECTIVE_EXPIRED)
    believer.recovers()


def test_two_sets_under_one_number_are_a_fork(believer: Believer) -> None:
    registry = believer.registry
    believer.recovers()
    registry.directive = registry.sign_directive((replace(believer.old, attempt=1),))
    believer.refuses(Reason.DIRECTIVE_FORK)
    assert believer.runs() == "1.1.0"


def twice(key: str) -> Callable[[bytes], bytes]:
    return lambda raw: raw.replace(b'{"', b'{"%s":"evil","' % key.encode(), 1)


@pytest.mark.parametrize(
    "bend",
    [
        twice("device"),
        lambda raw: raw.replace(b'"seq":2', b'"seq":2.0'),
        lambda raw: raw.replace(b'"seq":2', b'"seq":1e999'),
        lambda raw: raw.replace(b'"seq":2', b'"seq":NaN'),
        lambda raw: raw.replace(b'"seq":2', b'"seq":-2'),
        lambda raw: raw.replace(b'"seq":2', b'"seq":"2"'),
        lambda raw: raw.replace(b'"seq":2', b'"seq":%s' % (b"9" * 5000)),
        lambda raw: raw.replace(b'"seq":2', b'"seq":2,"more":1'),
        lambda raw: raw.replace(b'"seq":2', b'"seq":%s' % (b"[" * 40 + b"]" * 40)),
        lambda raw: raw + b" {}",
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw.replace(b'"cam-1"', b'"cam-1\\ud800"'),
        lambda raw: raw.replace(b'"cam-1"', b'"cam-1\xff"'),
        lambda raw: raw.replace(b'"detector"', b'"../../detector"'),
        lambda raw: raw.replace(b'"1.1.0"', b'"1.1.0/../../x"'),
        lambda raw: raw.replace(b"models/detector/1.1.0", b"models/../detector/1.1.0"),
        lambda raw: raw.replace(b"models/detector/1.1.0", b"models/other/1.1.0"),
        lambda raw: raw.replace(b'"onnx-fp32"', b'"/etc/passwd"'),
        lambda raw: b"null",
        lambda raw: b"",
    ],
)
def test_signed_nonsense_is_nonsense(believer: Believer, bend: Callable[[bytes], bytes]) -> None:
    """Even under the director's own signature: one spelling of each thing, strict names."""
    payload = payload_of(believer)
    bent, outside = bend(payload), believer.outside
    assert bent != payload
    sign(believer, bent)
    believer.refuses(Reason.BAD_DIRECTIVE)
    assert believer.outside == outside
    believer.recovers()


def envelope(believer: Believer) -> bytes:
    believer.registry.order(believer.new)
    return believer.registry.directive


@pytest.mark.parametrize(
    "bend",
    [
        twice("payload"),
        lambda raw: raw.replace(b'"payload":"', b'"payload":"\\u0000', 1),
        lambda raw: b"[" * 100_000,
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"<html>login</html>",
        lambda raw: json.dumps({**json.loads(raw), "signatures": []}).encode(),
        lambda raw: json.dumps({**json.loads(raw), "more": 1}).encode(),
    ],
    ids=["twice", "zero byte", "deep", "half", "portal", "unsigned", "unknown field"],
)
def test_what_is_no_envelope_is_refused(believer: Believer, bend: Callable[[bytes], bytes]) -> None:
    raw = envelope(believer)
    bent = bend(raw)
    assert bent != raw
    believer.registry.directive = bent
    believer.refuses(Reason.BAD_ENVELOPE)
    believer.recovers()


def test_one_changed_bit_is_another_directive(believer: Believer) -> None:
    payload = payload_of(believer)
    honest = believer.registry.directive
    other = payload.replace(b"1.1.0", b"1.1.1")
    forged = json.loads(honest)
    forged["payload"] = json.loads(dsse.sign("x", other, Ed25519PrivateKey.generate()))["payload"]
    believer.registry.directive = json.dumps(forged, separators=(",", ":")).encode()
    believer.refuses(Reason.WRONG_KEY)
    believer.recovers()


def test_a_directive_without_end_is_not_even_read(believer: Believer) -> None:
    """It lies in the inbox for whoever looks; the device goes on without it."""
    registry, before = believer.registry, believer.served()
    registry.directive = b"{" + b" " * (4 << 20)
    believer.works()
    assert believer.served() == before
    believer.recovers()


def test_one_bad_entry_spoils_the_whole_set(believer: Believer) -> None:
    registry = believer.registry
    other = registry.publish("other", "1.0.0", {"model.onnx": b"x"})
    registry.order(believer.new, replace(other, sha256="0" * 64))
    believer.refuses(Reason.TARGET_MISMATCH)
    assert believer.runs("other") is None
    believer.recovers()


def test_a_model_left_out_of_the_set_keeps_running(believer: Believer) -> None:
    before = believer.served()
    believer.registry.order()
    believer.works()
    assert believer.served() == before
    believer.recovers()


def test_an_order_for_a_build_that_is_not_there(believer: Believer) -> None:
    bad: Entry = replace(believer.new, variant="onnx-int8")
    believer.registry.order(bad)
    believer.refuses(Reason.VARIANT_UNKNOWN)
    believer.recovers()

"""Attacks on the directive: what the director signs, and what is made to look like it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse, messages
from pilotwave_protocol.messages import Entry
from pilotwave_protocol.states import Reason
from tests.attacks.victim import Victim


def payload_of(victim: Victim) -> bytes:
    """Return the bytes that the director signs for an honest order of 1.1.0."""
    victim.registry.order(victim.new)
    found = dsse.peek_unverified(
        victim.registry.directive, payload_type=messages.DIRECTIVE_TYPE, max_bytes=1 << 20
    )
    return found.payload


def sign(victim: Victim, payload: bytes) -> None:
    registry = victim.registry
    registry.directive = dsse.sign(messages.DIRECTIVE_TYPE, payload, registry.director)


def test_another_key_directs_nobody(victim: Victim) -> None:
    payload = payload_of(victim)
    stranger = Ed25519PrivateKey.generate()
    victim.registry.directive = dsse.sign(messages.DIRECTIVE_TYPE, payload, stranger)
    victim.refuses(Reason.WRONG_KEY)
    victim.recovers()


def test_a_directive_of_another_type_is_no_directive(victim: Victim) -> None:
    payload, registry = payload_of(victim), victim.registry
    registry.directive = dsse.sign(messages.CHECK_IN_TYPE, payload, registry.director)
    victim.refuses(Reason.BAD_ENVELOPE)
    victim.recovers()


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"fleet": "other"}, Reason.WRONG_FLEET), ({"device": "cam-2"}, Reason.WRONG_DEVICE)],
    ids=["fleet", "device"],
)
def test_what_is_meant_for_others_is_refused(
    victim: Victim, change: dict[str, str], reason: Reason
) -> None:
    registry = victim.registry
    registry.order(victim.new)
    registry.directive = registry.sign_directive((victim.new,), **change)
    victim.refuses(reason)
    victim.recovers()


def test_a_replayed_directive_is_refused(victim: Victim) -> None:
    """The order of an old version: once more what the director truly signed some time ago."""
    registry, replayed = victim.registry, victim.registry.directive
    victim.recovers()
    registry.directive = replayed
    victim.refuses(Reason.DIRECTIVE_REPLAYED)
    assert victim.device.current().startswith("1.1.0-")


def test_two_sets_under_one_number_are_a_fork(victim: Victim) -> None:
    registry = victim.registry
    victim.recovers()
    registry.directive = registry.sign_directive((replace(victim.old, attempt=1),))
    victim.refuses(Reason.DIRECTIVE_FORK)
    assert victim.device.current().startswith("1.1.0-")


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
def test_signed_nonsense_is_nonsense(victim: Victim, bend: Callable[[bytes], bytes]) -> None:
    """Even under the director's own signature: one spelling of each thing, strict names."""
    payload = payload_of(victim)
    bent, outside = bend(payload), victim.outside
    assert bent != payload
    sign(victim, bent)
    victim.refuses(Reason.BAD_DIRECTIVE)
    assert victim.outside == outside
    victim.recovers()


def envelope(victim: Victim) -> bytes:
    victim.registry.order(victim.new)
    return victim.registry.directive


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
def test_what_is_no_envelope_is_refused(victim: Victim, bend: Callable[[bytes], bytes]) -> None:
    raw = envelope(victim)
    bent = bend(raw)
    assert bent != raw
    victim.registry.directive = bent
    victim.refuses(Reason.BAD_ENVELOPE)
    victim.recovers()


def test_one_changed_bit_is_another_directive(victim: Victim) -> None:
    payload = payload_of(victim)
    honest = victim.registry.directive
    other = payload.replace(b"1.1.0", b"1.1.1")
    forged = json.loads(honest)
    forged["payload"] = json.loads(dsse.sign("x", other, Ed25519PrivateKey.generate()))["payload"]
    victim.registry.directive = json.dumps(forged, separators=(",", ":")).encode()
    victim.refuses(Reason.WRONG_KEY)
    victim.recovers()


def test_a_directive_without_end_is_not_even_read(victim: Victim) -> None:
    """It lies in the inbox for whoever looks; the device goes on without it."""
    registry, before = victim.registry, victim.served()
    registry.directive = b"{" + b" " * (4 << 20)
    victim.device.work(refresh=True)
    assert victim.served() == before
    victim.recovers()


def test_one_bad_entry_spoils_the_whole_set(victim: Victim) -> None:
    registry = victim.registry
    other = registry.publish("other", "1.0.0", {"model.onnx": b"x"})
    registry.order(victim.new, replace(other, sha256="0" * 64))
    victim.refuses(Reason.TARGET_MISMATCH)
    assert "other" not in victim.device.state.models
    victim.recovers()


def test_a_model_left_out_of_the_set_keeps_running(victim: Victim) -> None:
    before = victim.served()
    victim.registry.order()
    victim.device.work(refresh=True)
    assert victim.served() == before
    victim.recovers()


def test_an_order_for_a_build_that_is_not_there(victim: Victim) -> None:
    bad: Entry = replace(victim.new, variant="onnx-int8")
    victim.registry.order(bad)
    victim.refuses(Reason.VARIANT_UNKNOWN)
    victim.recovers()

"""The quick reader of check-ins says what the strict one says, or nothing."""

from __future__ import annotations

import base64
import json
import random
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilotwave_protocol import dsse, strictjson
from pilotwave_protocol.errors import ProtocolError
from pilotwave_protocol.messages.check_in import (
    CHECK_IN_TYPE,
    CheckIn,
    DeviceEvent,
    Installed,
    ModelReport,
    parse_check_in,
)
from pilotwave_protocol.states import ModelState
from pilotwave_server.device_api.steady import MAX_BYTES, read_steady

KEY = Ed25519PrivateKey.generate()
HEALTHY = ModelReport("detector", ModelState.HEALTHY, Installed("1.0.0", "ab" * 32, "onnx-fp32", 1))
EVENT = DeviceEvent(7, datetime(2026, 1, 31, 9, tzinfo=timezone.utc), "healthy", "detector", "1.0")
STEADY: dict[str, Any] = {
    "fleet": "bench",
    "device": "cam-017",
    "seq": 41,
    "agent": "0.1.0+3f2a9c1e",
    "directive_seq": 12,
    "tuf": {"root": 1, "timestamp": 2, "snapshot": 3},
    "models": (HEALTHY,),
}
READ = [
    {},
    {"models": ()},
    {"models": (HEALTHY, ModelReport("ocr", ModelState.FAILED, reason="timeout", progress=7))},
    {"events": (EVENT, EVENT)},
    {"numbering": "0a" * 16},
    {"numbering": "0a" * 16, "boot": "ff" * 8, "dropped_events": 3},
]
LEFT = [
    {"facts": {"arch": "arm64"}},
    {"refusal": {"reason": "expired", "detail": ""}},
    {"challenge": "a.b.c", "numbering": "0a" * 16},
    {"agent": 'a "quoted" one'},
    {"agent": "é"},
    {"models": (ModelReport("ocr", ModelState.FAILED, detail='said "no"'),)},
]


def envelope(payload: bytes) -> bytes:
    return dsse.sign(CHECK_IN_TYPE, payload, KEY)


def strict(raw: bytes) -> tuple[dsse.Unverified, CheckIn]:
    claimed = dsse.peek_unverified(raw, payload_type=CHECK_IN_TYPE, max_bytes=1 << 20)
    return claimed, parse_check_in(claimed.payload)


@pytest.mark.parametrize("change", READ)
def test_what_agents_write_is_read_as_the_strict_reader_reads_it(change: dict[str, Any]) -> None:
    raw = envelope(CheckIn(**{**STEADY, **change}).to_bytes())
    assert read_steady(raw) == strict(raw)


@pytest.mark.parametrize("change", LEFT)
def test_what_is_seldom_is_left_to_the_strict_reader(change: dict[str, Any]) -> None:
    raw = envelope(CheckIn(**{**STEADY, **change}).to_bytes())
    assert strict(raw)[1].device == "cam-017"
    assert read_steady(raw) is None


def refused_or_same(raw: bytes) -> None:
    """Whatever the quick reader takes, the strict one takes for the same."""
    read = read_steady(raw)
    if read is not None:
        assert read == strict(raw)


def test_no_change_of_a_byte_is_read_otherwise_than_by_the_strict_reader() -> None:
    draw = random.Random(5)
    payload = CheckIn(**{**STEADY, "events": (EVENT,), "numbering": "0a" * 16}).to_bytes()
    alphabet = b'"\\{}[],:0129aef_-. \x00\xff' + bytes(range(32, 127))
    for _ in range(20_000):
        changed = bytearray(payload)
        at = draw.randrange(len(changed))
        if draw.random() < 0.5:
            changed[at] = draw.choice(alphabet)
        elif draw.random() < 0.5:
            del changed[at : at + draw.randrange(1, 40)]
        else:
            begin = draw.randrange(len(payload))
            changed[at:at] = payload[begin : begin + draw.randrange(1, 60)]
        refused_or_same(unsigned(bytes(changed)))


def unsigned(payload: bytes) -> bytes:
    return dsse.wrap(CHECK_IN_TYPE, payload, [("ab" * 32, bytes(64))])


# each is one of the strict reader's rules
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"dropped_events":0', b'"dropped_events":9007199254740993'),  # more than JSON can hold
        (b'"seq":41', b'"seq":0'),
        (b'"seq":41', b'"seq":41,"seq":42'),  # a key twice
        (b'"state":"healthy"', b'"state":"healthy","state":"idle"'),
        (b'"events":[]', b'"events":[],"events":[]'),
        (b'"events":[]', b'"events":[NaN]'),
        (b'"progress":null', b'"progress":null,"facts":null'),  # unknown inside
        (b'"version":"1.0.0"', b'"version":"1..0"'),
        (b'"device":"cam-017"', b'"device":"cam--017"'),
        (b'"fleet":"bench"', b'"fleet":"Bench"'),
        (b'"models":[', b'"models":[7,'),
    ],
)
def test_what_the_strict_reader_refuses_is_left_to_it(old: bytes, new: bytes) -> None:
    payload = CheckIn(**STEADY).to_bytes()
    assert old in payload
    raw = envelope(payload.replace(old, new))
    assert read_steady(raw) is None
    with pytest.raises(ProtocolError):
        strict(raw)


def test_one_model_twice_is_left_to_the_strict_reader() -> None:
    assert read_steady(envelope(CheckIn(**{**STEADY, "models": (HEALTHY,) * 2}).to_bytes())) is None


@pytest.mark.parametrize("sig", ["", "=", "AA=", "A===", "AA==AA==", "A A=", "AAAA\n"])
def test_base64_is_as_strict_as_in_other_envelopes(sig: str) -> None:
    payload = base64.b64encode(CheckIn(**STEADY).to_bytes()).decode()
    signatures = [{"keyid": "ab" * 32, "sig": sig}]
    whole = {"payload": payload, "payloadType": CHECK_IN_TYPE, "signatures": signatures}
    refused_or_same(strictjson.dumps(whole))
    refused_or_same(json.dumps(whole).encode())


def test_a_payload_made_to_be_slow_is_not() -> None:
    parts = [b'],"facts":null,"fleet":"x","metrics":[],"models":[', b'"events":[', b"[" * 50, b",9"]
    head, _, tail = CheckIn(**STEADY).to_bytes().partition(b'"events":[')
    for part in parts:
        raw = unsigned((head + b'"events":[' + part * (3000 // len(part)) + tail)[:MAX_BYTES])
        began = time.process_time()
        for _ in range(20):
            read_steady(raw)
        assert time.process_time() - began < 0.2  # 10 ms each; the strict reader takes as long

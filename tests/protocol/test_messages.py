"""Directives, check-ins, enrolments: round trips, and wrong fields refused with their path."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_protocol.errors import BadMessage, SealingError
from pilotwave_protocol.messages.check_in import (
    MAX_CHECK_IN_BYTES,
    MAX_METRICS,
    CheckIn,
    DeviceEvent,
    Installed,
    MetricReport,
    ModelReport,
    parse_check_in,
)
from pilotwave_protocol.messages.check_in_reply import CheckInReply, parse_check_in_reply
from pilotwave_protocol.messages.diagnostics import (
    MAX_SEALED_BYTES,
    Diagnostics,
    DiagnosticsWish,
    parse_diagnostics,
)
from pilotwave_protocol.messages.directive import Directive, Entry, parse_directive
from pilotwave_protocol.messages.enrol import Enrol, EnrolReply, parse_enrol, parse_enrol_reply
from pilotwave_protocol.sealing import public_hex, seal, sealed_about, unseal
from pilotwave_protocol.sketch import Sketch
from pilotwave_protocol.states import ModelState

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
ENTRY = Entry(
    "detector", "1.1.0", "models/detector/1.1.0.json", "a" * 64, 700, 2, "onnx-fp32", "pin"
)
DIRECTIVE = Directive("acme", "cam-017", 12, NOW, NOW + timedelta(days=7), 5, (ENTRY,))
INSTALLED = Installed("1.1.0", "a" * 64, "onnx-fp32", 2)
SKETCH = Sketch()
SKETCH.add(12.5, 40)
WINDOW = MetricReport(
    5, "detector", "1.1.0", "latency_ms", NOW, NOW + timedelta(minutes=15), SKETCH
)
CHECK_IN = CheckIn(
    fleet="acme",
    device="cam-017",
    seq=3,
    agent="0.1.0",
    directive_seq=12,
    tuf={"root": 1, "timestamp": 9, "snapshot": 8},
    models=(ModelReport("detector", ModelState.HEALTHY, INSTALLED, progress=100),),
    events=(DeviceEvent(7, NOW, "switched", "detector", "1.1.0"),),
    facts={"arch": "x86_64", "memory_mb": 512, "battery": 71.5, "network.metered": False},
    refusal={"reason": "wrong_key", "detail": "expected 1 valid signature"},
    metrics=(WINDOW,),
)
PLAIN_WINDOW = json.loads(CHECK_IN.to_bytes())["metrics"][0]


def test_each_message_reads_back_as_it_was_written() -> None:
    assert parse_directive(DIRECTIVE.to_bytes()) == DIRECTIVE
    assert parse_check_in(CHECK_IN.to_bytes()) == CHECK_IN
    enrol = Enrol("cam-017", "b" * 64, "code", {"arch": "aarch64"})
    assert parse_enrol(enrol.to_bytes()) == enrol
    hint = {"root": 1, "timestamp": 9, "snapshot": 0}
    reply = CheckInReply("t", 900, 60, 900, 7, hint, NOW, acked_metric=5)
    assert parse_check_in_reply(reply.to_bytes()) == reply
    joined = EnrolReply("cam-017", "enrolled", "acme", 60, 900)
    assert parse_enrol_reply(joined.to_bytes()) == joined


@pytest.mark.parametrize(
    "wish",
    ["no", 7, [], {}, {"id": 0, "reader": "ab" * 32}, {"id": 1, "reader": "AB" * 32}, {"id": "1"}],
)
def test_a_wish_that_is_none_does_not_cost_a_device_its_token(wish: object) -> None:
    reply = CheckInReply("t", 900, 60, 900, 7, {"root": 1, "timestamp": 1, "snapshot": 1}, NOW)
    said = {**json.loads(reply.to_bytes()), "diagnostics": wish}
    assert parse_check_in_reply(json.dumps(said).encode()) == reply


def test_a_reply_carries_a_wish_and_a_device_its_answer() -> None:
    wish = DiagnosticsWish(7, "ab" * 32)
    hint = {"root": 1, "timestamp": 1, "snapshot": 1}
    reply = CheckInReply("t", 900, 60, 900, 7, hint, NOW, diagnostics=wish)
    assert parse_check_in_reply(reply.to_bytes()) == reply
    answer = Diagnostics("acme", "cam-017", wish, "cd" * 32, b"sealed")
    for said in (answer, replace(answer, sealed=b"", refused="no")):
        assert parse_diagnostics(said.to_bytes()) == said
    for wrong in (
        replace(answer, sealed=b""),
        replace(answer, refused="no"),
        replace(answer, sealed=bytes(MAX_SEALED_BYTES + 1)),
        replace(answer, public_key="x"),
    ):
        with pytest.raises(BadMessage):
            parse_diagnostics(wrong.to_bytes())


def test_what_is_sealed_opens_with_its_key_and_for_its_device_alone() -> None:
    key, other = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    about = sealed_about("acme", "cam-017", 7)
    sealed = seal(b"lines", public_hex(key), about=about)
    assert unseal(sealed, key, about=about) == b"lines"
    for bad, who, of in (
        (sealed, other, about),
        (sealed, key, sealed_about("acme", "cam-018", 7)),
        (sealed[:-1], key, about),
        (b"", key, about),
    ):
        with pytest.raises(SealingError):
            unseal(bad, who, about=of)
    with pytest.raises(SealingError):
        seal(b"lines", "00" * 32, about=about)  # a point that anybody can compute with


def test_a_reply_may_say_more_than_an_older_device_knows() -> None:
    joined = json.loads(EnrolReply("cam-017", "enrolled", "acme", 60, 900).to_bytes())
    assert parse_enrol_reply(json.dumps({**joined, "motd": "hello"}).encode()).fleet == "acme"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "pilotwave/check-in/1"),
        ("fleet", "../x"),
        ("device", "CAM"),
        ("seq", -1),
        ("seq", "12"),
        ("seq", 2**60),
        ("issued", "2026-01-31 09:30:00"),
        ("issued", "2026-13-31T09:30:00Z"),
        ("issued", 7),
        ("set", {}),
        ("set", [7]),
        ("set", [vars(ENTRY)] * 2),
        ("set", [{**vars(ENTRY), "target": "models/other/1.1.0.json"}]),
        ("set", [{**vars(ENTRY), "variant": "../x"}]),
        ("set", [{**vars(ENTRY), "more": 1}]),
        ("more", 1),
    ],
)
def test_a_wrong_field_of_a_directive_is_refused(field: str, value: object) -> None:
    data = {**json.loads(DIRECTIVE.to_bytes()), field: value}
    with pytest.raises(BadMessage):
        parse_directive(json.dumps(data).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seq", 0),
        ("agent", "x\0"),
        ("facts", {"A": 1}),
        ("facts", {"a": [1]}),
        ("facts", {"a": "x" * 300}),
        ("facts", {"a": "\x1b[31m"}),  # would colour an operator's terminal
        ("facts", {f"k{n}": 1 for n in range(65)}),
        ("events", [{"id": 1}]),
        ("models", [{"model": "detector", "state": "flying"}]),
        ("tuf", {"root": -1}),
        ("refusal", {"reason": "x"}),
        ("metrics", {}),
        ("metrics", [PLAIN_WINDOW] * 17),
        ("metrics", [{**PLAIN_WINDOW, "metric": "Latency"}]),
        ("metrics", [{**PLAIN_WINDOW, "end": "2026-01-30T09:30:00Z"}]),
        ("metrics", [{**PLAIN_WINDOW, "sketch": {}}]),
        ("metrics", [{**PLAIN_WINDOW, "more": 1}]),
    ],
)
def test_a_wrong_field_of_a_check_in_is_refused(field: str, value: object) -> None:
    data = {**json.loads(CHECK_IN.to_bytes()), field: value}
    with pytest.raises(BadMessage):
        parse_check_in(json.dumps(data).encode())


def test_an_agent_without_live_metrics_may_leave_them_out() -> None:
    data = {k: v for k, v in json.loads(CHECK_IN.to_bytes()).items() if k != "metrics"}
    assert parse_check_in(json.dumps(data).encode()).metrics == ()


def test_as_many_windows_as_allowed_fit_into_a_check_in() -> None:
    wide = Sketch()
    for step in range(1000):
        wide.add(1.02**step, 10**5)
    windows = tuple(dataclasses.replace(WINDOW, sketch=wide) for _ in range(MAX_METRICS))
    payload = dataclasses.replace(CHECK_IN, metrics=windows).to_bytes()
    assert len(payload) * 4 / 3 + 1024 < MAX_CHECK_IN_BYTES


@given(st.binary(max_size=120))
def test_random_bytes_raise_nothing_but_bad_message(raw: bytes) -> None:
    for parse in (parse_directive, parse_check_in, parse_enrol, parse_check_in_reply):
        with pytest.raises(BadMessage):
            parse(raw)


def test_the_set_digest_sees_the_set_and_nothing_else() -> None:
    later = dataclasses.replace(DIRECTIVE, seq=13, issued=NOW + timedelta(hours=1), min_snapshot=9)
    assert later.set_digest == DIRECTIVE.set_digest
    other = dataclasses.replace(DIRECTIVE, entries=(dataclasses.replace(ENTRY, attempt=1),))
    assert other.set_digest != DIRECTIVE.set_digest

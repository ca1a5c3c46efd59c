"""What reads bytes before a signature was checked takes linear time, whatever the bytes are."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
from collections.abc import Callable

import pytest

from pilotwave_protocol import dsse, names, push, sniff, strictjson
from pilotwave_protocol.messages.check_in import parse_check_in
from pilotwave_protocol.messages.check_in_reply import parse_check_in_reply
from pilotwave_protocol.messages.enrol import parse_enrol
from pilotwave_protocol.sketch import Sketch
from tests.protocol.compiled import gguf
from tests.timing import assert_linear

Make = Callable[[int], bytes]
JSON: dict[str, Make] = {
    "one key, often": lambda n: b"{" + b'"a":1,' * (n // 6) + b'"a":1}',
    "a key that comes again at the end": lambda n: (
        b"{" + b",".join(b'"%07d":1' % i for i in range(n // 12)) + b',"z":1,"z":1}'
    ),
    "many objects, each with a repeat": lambda n: b"[" + b'{"a":1,"a":1},' * (n // 14) + b"1]",
    "many keys": lambda n: b"{" + b",".join(b'"%07d":1' % i for i in range(n // 12)) + b"}",
    "open brackets": lambda n: b"[" * n,
    "open braces": lambda n: b'{"a":' * (n // 5),
    "brackets side by side": lambda n: b"[" + b"[]," * (n // 3) + b"1]",
    "braces side by side": lambda n: b"[" + b"{}," * (n // 3) + b"1]",
    "digits": lambda n: b"1" * n,
    "digits behind a point": lambda n: b"0." + b"1" * n,
    "zeros and an exponent": lambda n: b"0." + b"0" * n + b"1e%d" % n,
    "digits and a negative exponent": lambda n: b"1" * n + b"e-%d" % n,
    "an exponent of digits": lambda n: b"1e" + b"9" * n,
    "a negative exponent of digits": lambda n: b"1e-" + b"9" * n,
    "integers": lambda n: b"[" + b"1," * (n // 2) + b"1]",
    "floats": lambda n: b"[" + b"1.5," * (n // 4) + b"1]",
    "quotes": lambda n: b'"' * n,
    "escaped quotes, never closed": lambda n: b'"' + b'\\"' * (n // 2),
    "backslashes": lambda n: b'"' + b"\\\\" * (n // 2) + b'"',
    "texts with brackets, never closed": lambda n: b'"[' * (n // 2),
    "backslashes before brackets": lambda n: b'"\\[' * (n // 3),
    "escapes": lambda n: b'"' + b"\\u0061" * (n // 6) + b'"',
    "pairs of surrogates, one of them lone": lambda n: (
        b'["' + b"\\ud83d\\ude00" * (n // 12) + b'\\ud800"]'
    ),
    "half surrogates": lambda n: b'"' + b"\\ud800" * (n // 6) + b'"',
    "spaces": lambda n: b" " * n + b"x",
    "lines": lambda n: b"\n" * n + b"x",
    "texts": lambda n: b"[" + b'"",' * (n // 3) + b"1]",
    "characters of four bytes": lambda n: ('"' + "\U0001f600" * (n // 4) + '"').encode(),
    "not UTF-8 at the end": lambda n: b'"' + b"a" * n + b"\xff",
}


@pytest.mark.parametrize("shape", JSON)
def test_json(shape: str) -> None:
    assert_linear(lambda raw: strictjson.loads(raw, max_bytes=len(raw)), JSON[shape], size=1 << 16)


def envelope(payload: bytes, signatures: bytes = b'{"keyid":"","sig":""}') -> bytes:
    return b'{"payloadType":"t","payload":"%b","signatures":[%b]}' % (payload, signatures)


ENVELOPES: dict[str, Make] = {
    "a long payload": lambda n: envelope(base64.b64encode(b"x" * n)),
    "no base64": lambda n: envelope(b"!" * n),
    "padding": lambda n: envelope(b"=" * n),
    "padding between": lambda n: envelope(b"AA==" * (n // 4)),
    "many signatures": lambda n: envelope(b"", b'{"keyid":"","sig":""},' * (n // 22) + b"1"),
    "a long key id": lambda n: envelope(b"", b'{"keyid":"%b","sig":""}' % (b"a" * n)),
    "a long signature": lambda n: envelope(b"", b'{"keyid":"","sig":"%b"}' % (b"A" * n)),
    "a long type": lambda n: b'{"payloadType":"%b","payload":"","signatures":[]}' % (b"a" * n),
    "fields that nobody knows": lambda n: (
        b"{" + b",".join(b'"%07d":1' % i for i in range(n // 12)) + b"}"
    ),
}


@pytest.mark.parametrize("shape", ENVELOPES)
def test_envelopes(shape: str) -> None:
    assert_linear(
        lambda raw: dsse.peek_unverified(raw, payload_type="t", max_bytes=len(raw)),
        ENVELOPES[shape],
        size=1 << 16,
    )


BEGUN = (
    b'{"schema":"pilotwave/check-in/1","fleet":"f","device":"d","seq":1,"agent":"0.1",'
    b'"directive_seq":0,"tuf":{"root":1,"timestamp":1,"snapshot":1},"models":[],"events":[],'
)
CHECK_INS: dict[str, Make] = {
    "fields that nobody knows": lambda n: (
        BEGUN + b",".join(b'"%07d":1' % i for i in range(n // 12)) + b"}"
    ),
    "many facts": lambda n: (
        BEGUN + b'"facts":{' + b",".join(b'"f%06d":1' % i for i in range(n // 12)) + b"}}"
    ),
    "many sketches": lambda n: (
        BEGUN + b'"metrics":[' + b'{"sketch":{"above":[1,1]}},' * (n // 28) + b"{}]}"
    ),
    "a long sketch": lambda n: (
        BEGUN + b'"metrics":[{"id":1,"model":"m","version":"1","metric":"m",'
        b'"start":"2026-01-31T09:30:00Z","end":"2026-01-31T09:30:00Z","sketch":{"above":['
        + b"1,1," * (n // 4)
        + b'1,1],"below":[]}}]}'
    ),
    "a device's name of digits": lambda n: (
        BEGUN.replace(b'"d"', b'"' + b"1" * n + b'"') + b'"z":1}'
    ),
    "a time of digits": lambda n: BEGUN + b'"refusal":{"reason":"' + b"0" * n + b'"}}',
}


@pytest.mark.parametrize("shape", CHECK_INS)
@pytest.mark.parametrize("parse", [parse_check_in, parse_check_in_reply, parse_enrol])
def test_messages(parse: Callable[[bytes], object], shape: str) -> None:
    # both ends refuse longer ones by their length
    assert_linear(parse, CHECK_INS[shape], size=1 << 12, largest=1 << 16)


SKETCHES: dict[str, Callable[[int], object]] = {
    "many bins": lambda n: {"above": list(range(n)), "below": [], "zero": 0},
    "one bin, often": lambda n: {"above": [1] * n, "below": [], "zero": 0},
    "falling bins": lambda n: {"above": list(range(n, 0, -1)), "below": [], "zero": 0},
    "long numbers": lambda n: {"above": [10**30] * n, "below": [], "zero": 0},
}


@pytest.mark.parametrize("shape", SKETCHES)
def test_sketches(shape: str) -> None:
    assert_linear(lambda plain: Sketch.from_plain(plain, bins=1 << 30), SKETCHES[shape], size=4096)


TEXTS: dict[str, Callable[[int], str]] = {
    "a word": lambda n: "a" * n + "!",
    "words and points": lambda n: "a." * (n // 2) + "!",
    "words and lines": lambda n: "a-" * (n // 2) + "_",
    "digits": lambda n: "1" * n + "!",
    "digits and points": lambda n: "1." * (n // 2) + "!",
    "a pre-release of digits": lambda n: "1.1.1-" + "0" * n + "!",
    "a pre-release of parts": lambda n: "1.1.1-" + "1." * (n // 2) + "!",
    "a build of parts": lambda n: "1.1.1+" + "a." * (n // 2) + "!",
    "a build of lines": lambda n: "1.1.1+" + "-" * n + "!",
    "a local version": lambda n: "1+" + "a." * (n // 2) + "!",
    "spaces": lambda n: " " * n + "!",
    "post-releases": lambda n: "1" + ".post1" * (n // 6) + "!",
    "slashes": lambda n: "models/" + "a/" * (n // 2),
    "dots": lambda n: "models/" + "." * n + ".json",
}
CHECKS: list[Callable[[str], object]] = [
    names.check_model,
    names.check_label_key,
    names.check_label_value,
    names.check_metric,
    names.check_sha256,
    names.check_file_path,
    names.check_version,
    names.version_key,
    names.model_of_role,
    names.parse_target_path,
    names._SLUG.fullmatch,
    names._KEY.fullmatch,
    names._PART.fullmatch,
    names._VERSION.fullmatch,
    names._SEMVER.fullmatch,
    lambda text: push.within_of(b"poll " + text.encode()),
]


@pytest.mark.parametrize("shape", TEXTS)
def test_names(shape: str) -> None:
    """The patterns themselves too, so that no limit before them has to stay where it is."""
    for check in CHECKS:
        names.version_key.cache_clear()
        assert_linear(check, TEXTS[shape], size=1 << 14, largest=1 << 17)


def archive(member: str, text: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("net/constants.pkl", b".")
        file.writestr(member, text)
    return made.getvalue()


def code(text: bytes) -> bytes:
    return archive("net/code/__torch__/net.py", text)


MODELS: dict[str, tuple[str, Make]] = {
    "definitions without an end": ("m.pt", lambda n: code(b"def forward(self: a" * (n // 19))),
    "a definition of letters": (
        "m.pt",
        lambda n: code(b"def forward(self: a, " + b"b" * n + b")"),
    ),
    "a definition of spaces": ("m.pt", lambda n: code(b"def forward(self: a," + b" " * n + b")")),
    "a pickle of texts": ("m.pt", lambda n: archive("net/data.pkl", b"\x8c\x01a" * (n // 3))),
    "a pickle of marks": ("m.pkl", lambda n: b"(" * n + b"."),
    "a pickle of digits": ("m.pkl", lambda n: b"I" + b"1" * n + b"\n."),
    "XML of elements": ("m.xml", lambda n: b"<net>" + b"<a/>" * (n // 4) + b"</net>"),
    "XML nested": ("m.xml", lambda n: b"<net>" + b"<a>" * (n // 3)),
    "XML with a long attribute": ("m.xml", lambda n: b'<net a="' + b"&lt;" * (n // 4) + b'"/>'),
    "ONNX of empty fields": ("m.onnx", lambda n: b"\x08\x08\x12\x00" * (n // 4)),
    "ONNX of empty nodes": (
        "m.onnx",
        lambda n: b"\x08\x08\x3a\x80\x80\x80\x01" + b"\x0a\x00" * (n // 2),
    ),
    "zeros": ("m.tflite", lambda n: b"\x08\0\0\0TFL3" + b"\0" * n),
    "a Hailo executable of empty networks": (
        "m.hef",
        lambda n: (
            struct.pack(">4sIIIQI", b"\x01HEF", 1, n // 2 * 2, 0, 0, 0) + b"\x12\0" * (n // 2)
        ),
    ),
    "a Rockchip description of brackets": (
        "m.rknn",
        lambda n: b"RKNN" + struct.pack("<4xQQQ", 1, 0, n) + b"[" * n,
    ),
    "GGUF of empty texts": (
        "m.gguf",
        lambda n: b"GGUF" + struct.pack("<IQQQBIIQ", 3, 0, 1, 1, 97, 9, 8, n // 8) + bytes(n),
    ),
    "GGUF of empty tensors": (
        "m.gguf",
        lambda n: gguf(tensors=n // 24) + bytes(n),
    ),
    "an NPU blob of zeros": ("m.blob", lambda n: bytes(n) + struct.pack("<Q", n) + b"OVNPU"),
    "a program": ("m.eim", lambda n: b"\x7fELF" + b"\0" * n),
}


@pytest.mark.parametrize("shape", MODELS)
def test_sniffers(shape: str) -> None:
    name, make = MODELS[shape]
    assert_linear(lambda raw: sniff.sniff_bytes(memoryview(raw), name), make, size=1 << 14)

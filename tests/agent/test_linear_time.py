"""What the agent reads from servers, caches and applications takes linear time, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Root
from tuf.api.serialization import DeserializationError

from pilotwave_agent.apps import heartbeats
from pilotwave_agent.net import mirror_first, server_api
from pilotwave_agent.net.http import HttpAnswer
from pilotwave_agent.runtimes.faults import reason_of
from tests.timing import assert_linear

Make = Callable[[int], bytes]
ANSWERS: dict[str, Make] = {
    "a key that comes again at the end": lambda n: (
        b"{" + b",".join(b'"%07d":1' % i for i in range(n // 12)) + b',"z":1,"z":1}'
    ),
    "open brackets": lambda n: b"[" * n,
    "a long sentence": lambda n: b'{"code":"a","detail":"' + b"\\u0001" * (n // 6) + b'"}',
    "a long number": lambda n: b'{"last_seq":' + b"9" * n + b"}",
    "a long link": lambda n: b'{"path":"/p?link=' + b"a" * n + b'!","expires_in_s":1}',
}


@pytest.mark.parametrize("shape", ANSWERS)
def test_problems_and_links(shape: str) -> None:
    def read(raw: bytes) -> None:
        server_api.ServerSaid(HttpAnswer(400, {}, raw))
        mirror_first._parse(HttpAnswer(200, {}, raw), "/p")

    assert_linear(read, ANSWERS[shape], size=1 << 14, largest=1 << 18)


@pytest.mark.parametrize("value", ["9" * 5000, "0" * 5000, "1e9", "-1", "", "٣"])
def test_any_retry_after_is_read_without_an_error(value: str) -> None:
    """Python refuses to read thousands of digits as a number."""
    said = server_api.ServerSaid(HttpAnswer(429, {"retry-after": value}, b""))
    assert said.retry_after_s is None or 0 <= said.retry_after_s <= 86_400


SIGNED = b'"signed":{"_type":"root","version":1,"spec_version":"1.0.31",'
METADATA: dict[str, Make] = {
    "many signatures": lambda n: (
        b'{"signatures":['
        + b",".join(b'{"keyid":"%07d","sig":""}' % i for i in range(n // 30))
        + b"],"
        + SIGNED
        + b'"expires":"2030-01-01T00:00:00Z","keys":{},"roles":{}}}'
    ),
    "one signature, often": lambda n: (
        b'{"signatures":[' + b'{"keyid":"a","sig":""},' * (n // 23) + b'{"keyid":"b","sig":""}],'
        + SIGNED + b'"expires":"2030-01-01T00:00:00Z","keys":{},"roles":{}}}'
    ),
    "many keys": lambda n: (
        b'{"signatures":[],' + SIGNED + b'"expires":"2030-01-01T00:00:00Z","keys":{'
        + b",".join(
            b'"%07d":{"keytype":"ed25519","scheme":"ed25519","keyval":{"public":"a"}}' % i
            for i in range(n // 80)
        )
        + b'},"roles":{}}}'
    ),
    "many keys of one role": lambda n: (
        b'{"signatures":[],' + SIGNED + b'"expires":"2030-01-01T00:00:00Z","keys":{},"roles":{'
        b'"root":{"threshold":1,"keyids":["a"' + b',"a"' * (n // 4) + b"]}}}}"
    ),
    "a long time": lambda n: b'{"signatures":[],' + SIGNED + b'"expires":"' + b"2" * n + b'"}}',
    "a long version": lambda n: b'{"signatures":[],"signed":{"_type":"root","version":' + b"9" * n,
    "nested": lambda n: b'{"signatures":' + b"[" * n,
}  # fmt: skip


@pytest.mark.parametrize("shape", METADATA)
def test_metadata(shape: str) -> None:
    def read(raw: bytes) -> None:
        try:
            Metadata[Root].from_bytes(raw)
        except DeserializationError:
            pass

    assert_linear(read, METADATA[shape], size=1 << 14, largest=1 << 18)


DESKS: dict[str, Make] = {
    "a long name": lambda n: b'{"schema":"pilotwave/app/1","app":"' + b"\\u0001" * (n // 6) + b'"}',
    "a long number": lambda n: b'{"schema":"pilotwave/app/1","beat":' + b"9" * n + b"}",
    "open brackets": lambda n: b"[" * n,
    "many keys": lambda n: b"{" + b",".join(b'"%07d":1' % i for i in range(n // 12)) + b"}",
}


@pytest.mark.parametrize("shape", DESKS)
def test_what_an_application_says_of_itself(shape: str, tmp_path: Path) -> None:
    file = tmp_path / "app.json"

    def read(raw: bytes) -> None:
        file.write_bytes(raw)
        heartbeats.read(tmp_path)

    assert_linear(read, DESKS[shape], size=1 << 12, largest=1 << 16)


WORDS: dict[str, Callable[[int], str]] = {
    "a phrase begun often": lambda n: "PyTorchStreamReader" * (n // 19),
    "another": lambda n: "INVALID_ARGUMENT" * (n // 16),
    "an operator, often": lambda n: "operator " * (n // 9),
    "shapes": lambda n: "shape" * (n // 5),
    "spaces": lambda n: " " * n,
}


@pytest.mark.parametrize("shape", WORDS)
def test_what_a_runtime_says_of_a_model(shape: str) -> None:
    def read(text: str) -> Any:
        return reason_of(RuntimeError(text), "load")

    assert_linear(read, WORDS[shape], size=1 << 14, largest=1 << 18)

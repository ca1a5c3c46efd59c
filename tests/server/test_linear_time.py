"""What the server reads of a request before it knows who sent it takes linear time.

The parsers of operators' texts (selectors, policies) are here too, behind their limits of length.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Column, Integer, String
from starlette.datastructures import Headers, QueryParams
from starlette.formparsers import FormParser, MultiPartParser
from starlette.requests import Request

from pilotwave_protocol.durations import _DURATION
from pilotwave_server.blobs.ranges import choose_part
from pilotwave_server.dashboard.i18n import choose
from pilotwave_server.device_api.tokens import peek_unverified
from pilotwave_server.edge import is_json
from pilotwave_server.events.feed import Types, read_cursor
from pilotwave_server.operators.authenticate import split
from pilotwave_server.paging import _decode
from pilotwave_server.registry.tuf_routes import _METADATA, _TARGET
from pilotwave_server.rollouts.policies.kinds import _CRON, _PERCENT
from pilotwave_server.rollouts.policies.yaml_text import MAX_TEXT, read_text
from pilotwave_server.selector.parse import MAX_LENGTH, parse
from pilotwave_server.strangers import OPEN, without_escapes
from pilotwave_server.strictbody import check
from tests.timing import assert_linear

COOKIES: dict[str, Callable[[int], str]] = {
    "escaped quotes": lambda n: 'a="' + '\\"' * (n // 2) + '"',
    "octal escapes": lambda n: 'a="' + "\\054" * (n // 4) + '"',
    "a backslash at the end": lambda n: 'a="' + "b" * n + '\\"',
    "semicolons": lambda n: ";" * n,
    "many cookies": lambda n: "a=b;" * (n // 4),
    "quotes": lambda n: "a=" + '"' * n,
    "spaces": lambda n: "a=" + " " * n + "b",
}


@pytest.mark.parametrize("shape", COOKIES)
def test_cookies(shape: str) -> None:
    def read(value: bytes) -> None:
        scope: dict[str, Any] = {"type": "http", "headers": [(b"cookie", value)]}
        without_escapes(scope)
        _ = Request(scope).cookies

    assert_linear(read, lambda n: COOKIES[shape](n).encode(), size=4096, largest=1 << 18)


FORMS: dict[str, Callable[[int], bytes]] = {
    "ampersands": lambda n: b"&" * n,
    "fields": lambda n: b"a&" * (n // 2),
    "percent signs": lambda n: b"a=" + b"%" * n,
    "escapes": lambda n: b"a=" + b"%41" * (n // 3),
    "equals signs": lambda n: b"=" * n,
    "a long name": lambda n: b"k" * n,
}


async def read_form(raw: bytes, kind: str) -> object:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield raw
        yield b""

    parser = FormParser if "urlencoded" in kind else MultiPartParser
    return await parser(Headers({"content-type": kind}), stream()).parse()


@pytest.mark.parametrize("shape", FORMS)
def test_forms(shape: str) -> None:
    kind = "application/x-www-form-urlencoded"
    assert_linear(lambda raw: asyncio.run(read_form(raw, kind)), FORMS[shape], size=1 << 14)


MARK = b"A" * 60
PART = b"--" + MARK + b'\r\nContent-Disposition: form-data; name="x"\r\n\r\n'
PARTS: dict[str, Callable[[int], bytes]] = {
    "line ends": lambda n: PART + b"\r\n" * (n // 2),
    "marks begun": lambda n: PART + (b"\r\n--" + MARK[:-1] + b"B") * (n // 64),
    "dashes": lambda n: PART + b"-" * n,
    "headers": lambda n: b"--" + MARK + b"\r\n" + b"a: b\r\n" * (n // 6),
    "a long header": lambda n: b"--" + MARK + b"\r\nA: " + b"x" * n,
    "many parts": lambda n: (PART + b"\r\n") * (n // 110),
    "semicolons": lambda n: b"--" + MARK + b"\r\nContent-Disposition: form-data" + b";" * n,
}


@pytest.mark.parametrize("shape", PARTS)
def test_forms_in_parts(shape: str) -> None:
    kind = f"multipart/form-data; boundary={MARK.decode()}"
    assert_linear(lambda raw: asyncio.run(read_form(raw, kind)), PARTS[shape], size=1 << 14)


TEXTS: dict[str, Callable[[int], str]] = {
    "letters": lambda n: "a" * n + "!",
    "digits": lambda n: "1" * n,
    "digits and points": lambda n: "1." * (n // 2),
    "points": lambda n: "." * n,
    "spaces": lambda n: " " * n + "!",
    "commas": lambda n: "," * n,
    "tags": lambda n: '"a",' * (n // 4),
    "underscores": lambda n: "_" * n,
    "words": lambda n: "a_" * (n // 2) + "!",
    "a bearer of points": lambda n: "Bearer " + "." * n,
    "a range of spaces": lambda n: "bytes=" + " " * n + "1",
    "a range of digits": lambda n: "bytes=" + "1" * n + "-",
    "ranges": lambda n: "bytes=" + "0-1," * (n // 4),
    "a path": lambda n: "models/" + "a." * (n // 2) + "/",
    "a login": lambda n: "/login/" + "/" * n,
    "cron": lambda n: "1-1/1," * (n // 6) + "!",
    "cron of stars": lambda n: "*/1," * (n // 4) + "!",
    "durations": lambda n: "1d" * (n // 2) + "!",
    "base64": lambda n: "W1tb" * (n // 4),
    "escapes": lambda n: "%41" * (n // 3),
    "parameters": lambda n: "a/b" + ";a=b" * (n // 4),
    "a quoted parameter": lambda n: 'a/b;c="' + '\\"' * (n // 2),
}
KEYS = [Column("name", String), Column("seen", Integer)]


def part(value: str) -> object:
    return choose_part(size=9, etag='"a"', range_=value, if_range=value, if_none_match=value)


READERS: dict[str, Callable[[str], object]] = {
    "an operator's token": split,
    "a device's token": lambda text: peek_unverified(text.encode()),
    "ranges and tags": part,
    "a language": lambda text: choose(text, text),
    "a kind of body": lambda text: is_json({"headers": [(b"content-type", text.encode())]}),
    "a query": QueryParams,
    "a cursor": lambda text: _decode(text, KEYS),  # type: ignore[arg-type]  # columns do as well
    "an event's place": read_cursor,
    "types of events": lambda text: Types([text]),
    "a metadata file": _METADATA.fullmatch,
    "a target": _TARGET.fullmatch,
    "an open path": OPEN.fullmatch,
    "cron": _CRON.fullmatch,
    "a duration": _DURATION.fullmatch,
    "a share": _PERCENT.fullmatch,
    "a time": datetime.fromisoformat,
}


@pytest.mark.parametrize("reader", READERS)
def test_headers_paths_and_queries(reader: str) -> None:
    for make in TEXTS.values():
        assert_linear(READERS[reader], make, size=1 << 13, largest=1 << 16)


SELECTORS: dict[str, Callable[[int], str]] = {
    **TEXTS,
    "conditions": lambda n: "a=b," * (n // 4),
    "values": lambda n: "a in (" + "b," * (n // 2),
    "quotes never closed": lambda n: '"' + "a" * n,
    "quotes side by side": lambda n: '""' * (n // 2),
    "backslashes": lambda n: '"' + "\\\\" * (n // 2),
    "brackets": lambda n: "(" * n,
    "no": lambda n: "!" * n,
}


@pytest.mark.parametrize("shape", SELECTORS)
def test_selectors(shape: str) -> None:
    make = SELECTORS[shape]
    assert_linear(parse, lambda n: make(n)[:MAX_LENGTH], size=1024, largest=2 * MAX_LENGTH)


POLICIES: dict[str, Callable[[int], str]] = {
    "open brackets": lambda n: "[" * n,
    "brackets": lambda n: "[" + "[]," * (n // 3) + "]",
    "braces": lambda n: "{a: " * (n // 4),
    "a list": lambda n: "- a\n" * (n // 4),
    "lists in lists": lambda n: "- " * (n // 2),
    "keys": lambda n: "".join(f"k{i:06d}: 1\n" for i in range(n // 11)),
    "questions": lambda n: "? " * (n // 2),
    "lines in quotes": lambda n: '"' + "a\n" * (n // 2),
    "words": lambda n: "a " * (n // 2),
    "commas": lambda n: "[" + "a," * (n // 2),
    "pairs": lambda n: "[" + "a: b, " * (n // 6) + "]",
    "directives": lambda n: "%a b\n" * (n // 5),
    "a tag": lambda n: "!" + "%41" * (n // 3),
    "digits": lambda n: "1" * n,
    "sixties": lambda n: "1" + ":1" * (n // 2),
    "anchors": lambda n: "&a " * (n // 3),
    "aliases": lambda n: "[" + "*a, " * (n // 4),
}


@pytest.mark.parametrize("shape", POLICIES)
def test_policies(shape: str) -> None:
    assert_linear(read_text, POLICIES[shape], size=4096, largest=MAX_TEXT // 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b'["' + b"\\u0000" * (n // 6) + b'"]',
        lambda n: b"[" + b'"\\u0000",' * (n // 9) + b"1]",
        lambda n: b"{" + b",".join(b'"%06d":1' % i for i in range(n // 11)) + b',"z":1,"z":1}',
    ],
)
def test_json_bodies(make: Callable[[int], bytes]) -> None:
    assert_linear(check, make, size=1 << 14)

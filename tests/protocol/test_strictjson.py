"""Strict JSON: one meaning for each document."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_protocol import strictjson
from pilotwave_protocol.errors import BadJson

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b'{"a":1,"a":2}', "came twice"),  # two readers, two meanings
        (b'{"b":{"a":1,"a":2}}', "came twice"),
        (b"NaN", "got NaN"),
        (b"[Infinity]", "got Infinity"),
        (b"1e999", "finite"),
        (b"1" * 33, "digits"),
        (b"[" * 40 + b"]" * 40, "nesting"),
        (b"[" * 100_000, "nesting"),
        (b"\xff", "UTF-8"),
        (b'\xef\xbb\xbf{"a":1}', "JSON"),
        (rb'"\ud800"', "surrogate"),
        (rb'{"\udfff":1}', "surrogate"),
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"x" * 2000, "at most 1000 bytes"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(BadJson, match=says):
        strictjson.loads(raw, max_bytes=200_000 if raw.startswith(b"[") else 1000)


def test_brackets_inside_text_do_not_count_as_depth() -> None:
    raw = json.dumps({"a": "[" * 100 + '\\"' + "{" * 100}).encode()
    assert strictjson.loads(raw, max_bytes=10_000)["a"].startswith("[[[")


@given(VALUES)
def test_what_is_written_reads_back_the_same(value: object) -> None:
    raw = strictjson.dumps(value)
    assert strictjson.loads(raw, max_bytes=1 << 20) == value
    assert strictjson.dumps(strictjson.loads(raw, max_bytes=1 << 20)) == raw


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_else(raw: bytes) -> None:
    try:
        strictjson.loads(raw, max_bytes=1000)
    except BadJson:
        pass

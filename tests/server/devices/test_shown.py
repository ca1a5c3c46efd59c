"""What is said of a set of devices so that an act reaches these and no other."""

from __future__ import annotations

import base64
import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotwave_server.devices.shown import MOST_NAMED, SKETCH_CHARS, difference, digest, sketch

NAMES = st.sets(st.from_regex(r"[a-z0-9]+(?:[._-][a-z0-9]+)*", fullmatch=True).filter(
    lambda name: len(name) <= 64
), max_size=40)  # fmt: skip
FLEET = [f"cam-{n:05}" for n in range(3000)]


def test_the_digest_is_one_that_others_can_make_too() -> None:
    by_hand = hashlib.sha256(b"cam-1\ncam-10\ncam-2\n").hexdigest()
    assert digest(["cam-2", "cam-10", "cam-1"]) == by_hand


@given(NAMES, NAMES)
def test_sets_have_the_same_digest_only_if_they_are_the_same(a: set[str], b: set[str]) -> None:
    assert (digest(a) == digest(b)) == (a == b)


@given(NAMES, NAMES)
def test_nobody_is_named_who_did_not_join_or_leave(a: set[str], b: set[str]) -> None:
    found = difference(b, sketch(a))
    assert set(found.joined) <= b - a
    assert set(found.left) <= a - b
    if found.whole:
        assert (set(found.joined), set(found.left)) == (b - a, a - b)


@pytest.mark.parametrize(
    ("joined", "left", "said"),
    [
        (["x-1"], [], "x-1 joined"),
        ([], ["cam-00000"], "cam-00000 left"),
        (["x-1", "x-2"], ["cam-00000"], "x-1, x-2 joined; cam-00000 left"),
        (["z" * 64], [], f"{'z' * 64} joined"),
    ],
)
def test_a_few_of_many_are_named(joined: list[str], left: list[str], said: str) -> None:
    now = [*(name for name in FLEET if name not in left), *joined]
    found = difference(now, sketch(FLEET))
    assert found.whole
    assert found.sentence == said


def test_of_many_that_joined_some_are_named_at_most() -> None:
    found = difference(FLEET[:12], sketch([]))
    assert len(found.joined) <= MOST_NAMED
    assert not found.whole
    assert difference(FLEET, sketch([])).sentence in ("", *[f"{n} joined" for n in FLEET])


def test_a_sketch_is_as_long_for_many_as_for_none() -> None:
    assert len(sketch(FLEET)) == len(sketch([])) == SKETCH_CHARS


@pytest.mark.parametrize("text", [None, "", "=", "x", "ü" * SKETCH_CHARS, "A" * (SKETCH_CHARS - 4)])
def test_what_is_no_sketch_names_nobody(text: str | None) -> None:
    assert difference(FLEET, text).sentence == ""


@given(st.binary(min_size=SKETCH_CHARS * 3 // 4, max_size=SKETCH_CHARS * 3 // 4))
def test_a_forged_sketch_names_none_but_devices_that_match(raw: bytes) -> None:
    found = difference(FLEET[:3], base64.urlsafe_b64encode(raw).decode())
    assert set(found.joined) <= set(FLEET[:3])


def test_a_sketch_that_gives_one_name_back_for_ever_is_given_up() -> None:
    """A name in one cell only: taken out there, it stands in its other cells, and so on."""
    raw = bytearray(base64.urlsafe_b64decode(sketch(["cam-1"])))
    size = len(raw) // 30
    places = [n for n in range(30) if any(raw[n * size : (n + 1) * size])]
    for place in places[1:]:
        raw[place * size : (place + 1) * size] = bytes(size)
    began = time.monotonic()
    found = difference([], base64.urlsafe_b64encode(bytes(raw)).decode())
    assert time.monotonic() - began < 1
    assert set(found.left) <= {"cam-1"}

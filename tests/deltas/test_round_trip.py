"""Whatever two files are, the delta turns the one into the other, with and without NumPy."""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotwave_protocol.delta import Mode, arrays, lanes
from tests.deltas.pairs import applied, bfloat16, made, tuned, weights

KINDS = ("int8", "float16", "float32", "float64")


def check(folder: Path, old: bytes, new: bytes) -> int:
    """Check the round trip both ways of reckoning; return the delta's size."""
    _, delta = made(folder, old, new)
    assert applied(delta, old, lanes) == new
    assert applied(delta, old, arrays) == new
    return len(delta)


SMALL = {
    "both empty": (b"", b""),
    "from nothing": (b"", b"something new"),
    "to nothing": (b"something old", b""),
    "one byte": (b"a", b"b"),
    "one byte to many": (b"a", bytes(range(256)) * 8),  # the prototype wrote what it could not read
    "many to one byte": (bytes(range(256)) * 8, b"a"),
    "the same": (b"0123456789" * 3000, b"0123456789" * 3000),
    "old shorter than a block": (b"x" * 700, random.Random(1).randbytes(300_000)),
    "moved by one": (bytes(1) + bytes(range(256)) * 400, bytes(range(256)) * 400),
    "zeros": (bytes(10_000), bytes(600_000)),
}


@pytest.mark.parametrize("name", SMALL)
def test_odd_sizes_come_back(tmp_path: Path, name: str) -> None:
    check(tmp_path, *SMALL[name])


@pytest.mark.parametrize("kind", KINDS)
def test_tuned_weights_come_back_smaller_than_both(tmp_path: Path, kind: str) -> None:
    old = weights(100_003, 1, kind)
    new = tuned(old, 2)
    size = check(tmp_path, b"head" + old.tobytes(), b"head!" + new.tobytes())
    assert size < (0.9 if kind == "float64" else 0.75) * new.nbytes  # most of a double is noise


def test_bfloat16_comes_back_smaller(tmp_path: Path) -> None:
    old = weights(150_000, 1, "float32")
    size = check(tmp_path, bfloat16(old), bfloat16(tuned(old, 2, 1e-4)))
    assert size < 0.6 * 300_000


def test_plain_floats_are_smaller_than_themselves(tmp_path: Path) -> None:
    new = weights(100_000, 1, "float32").tobytes()
    assert check(tmp_path, b"", new) < 0.88 * len(new)


def test_an_inserted_layer_leaves_the_rest_cheap(tmp_path: Path) -> None:
    old = weights(300_000, 1, "float32").tobytes()
    layer = weights(20_001, 9, "float32").tobytes()
    new = old[:400_000] + b"name" + layer + old[400_000:]
    assert check(tmp_path, old, new) < 0.88 * len(layer) + 3000


def test_a_moved_and_tuned_layer_is_found(tmp_path: Path) -> None:
    old = weights(300_000, 1, "float32")
    moved = tuned(old[:250_000], 3)
    new = weights(10_000, 9, "float32").tobytes() + b"abc" + moved.tobytes()
    assert check(tmp_path, old.tobytes(), new) < 0.75 * len(new)


def test_numbers_that_are_none_come_back(tmp_path: Path) -> None:
    old = weights(20_000, 1, "float32")
    new = tuned(old, 2)
    old[::7], new[::5], new[::11] = np.nan, np.inf, -0.0
    check(tmp_path, old.tobytes(), new.tobytes())


def test_a_row_that_only_decayed_costs_next_to_nothing(tmp_path: Path) -> None:
    old = weights(262_144, 1, "float32")
    new = old.copy()
    for _ in range(40):  # weight decay rounds at each step: what it does depends on the mantissa
        new -= new * np.float32(2e-7)
    assert check(tmp_path, old.tobytes(), new.tobytes()) < 0.02 * new.nbytes


def test_text_is_left_to_zstd(tmp_path: Path) -> None:
    words = [f"word{i % 977} " for i in range(60_000)]
    old = "".join(words).encode()
    chance = random.Random(3)
    for _ in range(500):
        words[chance.randrange(len(words))] = "other "
    found, delta = made(tmp_path, old, "".join(words).encode())
    assert applied(delta, old) == "".join(words).encode()
    assert found.header.mode is Mode.PATCH
    assert found.size < 6000


def test_pickles_come_back(tmp_path: Path) -> None:
    old = {"layers": [weights(5_000, i, "float64") for i in range(4)], "name": "x" * 100}
    new = old | {"layers": [tuned(w, i) for i, w in enumerate(old["layers"])], "epoch": 3}
    check(tmp_path, pickle.dumps(old), pickle.dumps(new))


PARTS = st.one_of(
    st.binary(max_size=400),
    st.integers(0, 255).flatmap(lambda b: st.integers(0, 6000).map(lambda n: bytes((b,)) * n)),
    st.tuples(st.sampled_from(KINDS), st.integers(1, 4000), st.integers(0, 3)).map(
        lambda k: weights(k[1], k[2], k[0]).tobytes()
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(PARTS, max_size=5), st.lists(PARTS, max_size=3), st.integers(0, 99))
def test_any_two_byte_strings_come_back(
    tmp_path: Path, parts: list[bytes], more: list[bytes], seed: int
) -> None:
    chance = random.Random(seed)
    old = b"".join(parts)
    mixed = parts + more
    chance.shuffle(mixed)
    new = bytearray(b"".join(mixed))
    for _ in range(seed % 7):
        if new:
            new[chance.randrange(len(new))] ^= 1 << chance.randrange(8)
    check(tmp_path, old, bytes(new))

"""Pairs of files that are no tensors, or hardly: text, pickles, archives, and what comes of edits.

`odd_pairs(size)` makes each old file about `size` bytes long.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterable

import numpy as np

from tests.deltas.pairs import tuned, weights

WORDS = (
    *("layer", "weight", "bias", "scale", "conv", "norm", "relu", "input"),
    *("output", "shape", "axis", "dense", "pool", "batch"),
)


def odd_pairs(size: int) -> dict[str, tuple[bytes, bytes]]:
    """Name and make all pairs."""
    return {name: make(size) for name, make in MAKERS.items()}


def _text(size: int, seed: int) -> bytes:
    chance = random.Random(seed)
    lines = [
        f"{chance.choice(WORDS)}.{chance.randrange(200)} = {chance.choice(WORDS)}"
        f"({chance.random():.4f}, {chance.choice(WORDS)})\n"
        for _ in range(size // 36)
    ]
    return "".join(lines).encode()


def _edited(data: bytes, seed: int, every: int) -> bytes:
    """Small insertions, deletions and changes, one in `every` bytes."""
    chance = random.Random(seed)
    parts, at = [], 0
    while at < len(data):
        step = chance.randrange(1, 2 * every)
        parts.append(data[at : at + step])
        parts.append(chance.choice([b"", b"\n", b"edit", bytes((chance.randrange(256),))]))
        at += step + chance.choice([0, 0, 1, 5])
    return b"".join(parts)


def _shuffled(data: bytes, piece: int) -> bytes:
    pieces = [data[i : i + piece] for i in range(0, len(data), piece)]
    random.Random(5).shuffle(pieces)
    return b"".join(pieces)


def _noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _table(size: int, seed: int) -> bytes:
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(size // 30, 4))
    return "\n".join(",".join(f"{x:.3f}" for x in row) for row in rows).encode()


def _record(size: int, seed: int) -> list[dict[str, object]]:
    chance = random.Random(seed)
    return [
        {"name": chance.choice(WORDS), "id": i, "score": round(chance.random(), 3)}
        for i in range(size // 55)
    ]


def _tree(size: int, seed: int) -> list[object]:
    """Nodes of a forest: small whole numbers and thresholds that come again and again."""
    chance = random.Random(seed)
    levels = [round(chance.gauss(0, 1), 4) for _ in range(64)]
    return [(chance.randrange(30), chance.choice(levels), i, i + 1) for i in range(size // 24)]


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _zip(files: dict[str, bytes], how: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, how)
    return out.getvalue()


def _files(size: int, seed: int) -> dict[str, bytes]:
    return {
        "a.txt": _text(size // 3, 1),
        "b.json": json.dumps(_record(size // 3, seed)).encode(),
        "c.bin": weights(size // 12, seed, "float32").tobytes(),
    }


def _state(size: int, seed: int) -> dict[str, object]:
    layers: dict[str, object] = {"epoch": seed, "names": WORDS}
    for i in range(8):
        old = weights(size // 64, i, "float64")
        layers[f"layer.{i}"] = old if i < 7 else tuned(old, seed, 1e-3)
    return layers


def _numbers(size: int, seed: int) -> bytes:
    return " ".join(f"{x:.6g}" for x in np.random.default_rng(seed).normal(size=size // 9)).encode()


def _two(files: Iterable[bytes]) -> tuple[bytes, bytes]:
    old, new = files
    return old, new


Make = Callable[[int], tuple[bytes, bytes]]
MAKERS: dict[str, Make] = {
    "text, another": lambda n: (_text(n, 1), _text(n, 2)),
    "text, edited a little": lambda n: (_text(n, 1), _edited(_text(n, 1), 2, 2000)),
    "text, edited much": lambda n: (_text(n, 1), _edited(_text(n, 1), 2, 60)),
    "text, lines in another order": lambda n: (_text(n, 1), _shuffled(_text(n, 1), 5000)),
    "text, doubled": lambda n: (_text(n // 2, 1), _text(n // 2, 1) * 2),
    "text to noise": lambda n: (_text(n, 1), _noise(n, 1)),
    "noise to text": lambda n: (_noise(n, 1), _text(n, 1)),
    "table of decimals": lambda n: (_table(n, 1), _table(n, 2)),
    "decimals, some changed": lambda n: (_numbers(n, 1), _edited(_numbers(n, 1), 1, 300)),
    "json": lambda n: (
        json.dumps(_record(n, 1)).encode(),
        json.dumps(_record(n + n // 10, 1), indent=1).encode(),
    ),
    "pickle of records": lambda n: (pickle.dumps(_record(n, 1)), pickle.dumps(_record(n, 2))),
    "pickle of trees": lambda n: (pickle.dumps(_tree(n, 1)), pickle.dumps(_tree(n, 2))),
    "pickle of arrays": lambda n: (pickle.dumps(_state(n, 1)), pickle.dumps(_state(n, 2))),
    "tar": lambda n: (_tar(_files(n, 1)), _tar({"new.txt": b"new", **_files(n, 2)})),
    "tar.gz": lambda n: _two(gzip.compress(_tar(_files(n, i)), mtime=0) for i in (1, 2)),
    "zip, deflated": lambda n: _two(_zip(_files(n, i), zipfile.ZIP_DEFLATED) for i in (1, 2)),
    "zip, stored": lambda n: _two(_zip(_files(n, i), zipfile.ZIP_STORED) for i in (1, 2)),
    "zip, stored to deflated": lambda n: (
        _zip(_files(n, 1), zipfile.ZIP_STORED),
        _zip(_files(n, 1), zipfile.ZIP_DEFLATED),
    ),
    "base64 of weights": lambda n: _two(
        base64.b64encode(tuned(weights(n // 6, 1, "float32"), i, 1e-3).tobytes()) for i in (1, 2)
    ),
    "from nothing, text": lambda n: (b"", _text(n, 1)),
    "from nothing, noise": lambda n: (b"", _noise(n, 1)),
    "to nothing": lambda n: (_text(n, 1), b""),
    "one byte": lambda n: (b"a", b"b"),
    "the same text": lambda n: (_text(n, 1), _text(n, 1)),
    "the same noise": lambda n: (_noise(n, 1), _noise(n, 1)),
    "noise, another": lambda n: (_noise(n, 1), _noise(n, 2)),
    "noise, reversed": lambda n: (_noise(n, 1), _noise(n, 1)[::-1]),
    "text, reversed": lambda n: (_text(n, 1), _text(n, 1)[::-1]),
    "noise, appended to": lambda n: (_noise(n, 1), _noise(n, 1) + _noise(n // 10, 2)),
    "noise, begun earlier": lambda n: (_noise(n, 1), _noise(n // 10, 2) + _noise(n, 1)),
    "noise, truncated": lambda n: (_noise(n, 1), _noise(n, 1)[: n // 3]),
    "noise, in another order": lambda n: (_noise(n, 1), _shuffled(_noise(n, 1), 3000)),
    "noise, edited": lambda n: (_noise(n, 1), _edited(_noise(n, 1), 1, 500)),
    "noise, a bit in each hundred bytes": lambda n: (
        _noise(n, 1),
        bytes(b ^ (i % 100 == 0) for i, b in enumerate(_noise(n, 1))),
    ),
    "zeros to text": lambda n: (bytes(n), _text(n, 1)),
    "zeros and a few bytes": lambda n: (bytes(n), _edited(bytes(n), 1, 3000)),
    "small whole numbers": lambda n: _two(
        np.random.default_rng(i).poisson(3, n // 8).astype("<i8").tobytes() for i in (1, 2)
    ),
    "rising whole numbers": lambda n: (
        np.arange(n // 4, dtype="<i4").tobytes(),
        np.arange(7, n // 4, dtype="<i4").tobytes(),
    ),
}

"""Byte strings like those of models, and small changes to them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pilotwave_deltas.generate import Made, generate
from pilotwave_protocol.delta import Applier
from pilotwave_protocol.delta.blocks import arithmetic

FLOATS = ("float16", "float32", "float64")


def weights(count: int, seed: int, dtype: str) -> NDArray[np.generic]:
    """Weights in rows of 64, each row with its own scale."""
    chance = np.random.default_rng(seed)
    scale = np.repeat(np.exp(chance.normal(size=-(-count // 64))), 64)[:count]
    values = chance.normal(size=count) * scale * 0.05
    if dtype == "int8":
        return np.clip(np.rint(values * 400), -127, 127).astype(np.int8)
    return values.astype(dtype)


def tuned(values: NDArray[np.generic], seed: int, step: float = 1e-3) -> NDArray[np.generic]:
    """The same weights after some training: every one moved a little."""
    chance = np.random.default_rng(seed)
    if values.dtype == np.int8:
        moved = values.astype(int) + chance.choice([-1, 0, 0, 1], size=len(values))
        return np.clip(moved, -127, 127).astype(np.int8)
    change = chance.normal(size=len(values)) * step
    return (values.astype(np.float64) * 1.01 + change).astype(values.dtype)


def bfloat16(values: NDArray[np.generic]) -> bytes:
    """The upper halves of float32 values."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()


def made(folder: Path, old: bytes, new: bytes) -> tuple[Made, bytes]:
    """Generate a delta; return what was said of it and its bytes."""
    paths = [folder / name for name in ("old", "new", "delta")]
    for path, data in zip(paths, (old, new), strict=False):
        path.write_bytes(data)
    found = generate(*paths)
    return found, paths[2].read_bytes()


def applied(delta: bytes, old: bytes, math: object = None) -> bytes:
    """Apply a delta in memory."""
    out = io.BytesIO()
    used = math or arithmetic()
    Applier(io.BytesIO(delta), io.BytesIO(old), out.write, math=used).run()  # type: ignore[arg-type]
    return out.getvalue()

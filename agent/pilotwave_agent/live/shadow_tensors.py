"""Hand tensors to another process through memory that has no name and no file.

Both sides read and write by position, never by mapping it: one that cuts it short or fills it with
nonsense makes the other read an error, not crash.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

START = 64
"""Where tensors begin; what lies before is the processes' own word."""
_TEXT = "text"
_NUMBERS = "biufc"
_MAX_DIMENSIONS = 16


def put(fd: int, tensors: Mapping[str, Any], at: int = START) -> list[Any]:
    """Copy tensors; return where each lies. Raises `OSError`, and `TypeError` for what is neither
    numbers nor texts."""
    words = []
    for name, value in tensors.items():
        array = np.asarray(value, order="C")
        is_number = array.dtype.kind in _NUMBERS
        raw: Any = array.reshape(-1).view(np.uint8) if is_number else _texts(array)
        words.append([name, array.dtype.str if is_number else _TEXT, list(array.shape), at])
        words[-1].append(len(raw))
        at += _write(fd, memoryview(raw), at)
    return words


def end_of(words: list[Any]) -> int:
    """Return where the next tensors may lie."""
    return max((at + size for _, _, _, at, size in words), default=START)


def get(fd: int, words: Any, most: int) -> dict[str, Any]:
    """Return copies of the tensors that the other side put there. Raises `ValueError` for more than
    `most` bytes and for what makes no sense, `OSError`."""
    found = {}
    for name, kind, shape, at, size in words:
        if len(shape) > _MAX_DIMENSIONS or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"expected a shape, got {shape!r:.80}")
        most -= size
        if not 0 <= size <= most + size or at < START:
            raise ValueError("expected less than that")
        found[str(name)] = _tensor(_read(fd, size, at), str(kind), tuple(shape))
    return found


def _tensor(raw: bytearray, kind: str, shape: tuple[int, ...]) -> Any:
    if kind == _TEXT:
        return np.array(json.loads(raw), object).reshape(shape)
    dtype = np.dtype(kind)
    if dtype.kind not in _NUMBERS or math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"expected {len(raw)} bytes of numbers, got {kind} {shape}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _texts(array: Any) -> bytes:
    texts = array.reshape(-1).tolist()
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"expected numbers or texts, got {array.dtype}")
    return json.dumps(texts).encode()


def _write(fd: int, view: memoryview, at: int) -> int:
    done = 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], at + done)
    return done


def _read(fd: int, size: int, at: int) -> bytearray:
    raw = bytearray(size)
    view, done = memoryview(raw), 0
    while done < size:
        count = os.preadv(fd, [view[done:]], at + done)
        if not count:
            raise ValueError(f"expected {size} bytes, got {done}")
        done += count
    return raw

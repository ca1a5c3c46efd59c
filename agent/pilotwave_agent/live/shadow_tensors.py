"""Hand tensors to another process through memory that has no name and no file.

Whoever puts tensors there maps it, which the kernel makes safe: nobody can cut it short. Whoever
takes them reads copies by position, so that what is nonsense is an error and no crash.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

START = 64
"""Where tensors begin; what lies before is the processes' own word."""
_TEXT = "text"
_NUMBERS = "biufc"
_MAX_DIMENSIONS = 16
_STEP = 1 << 20


class TensorMemory:
    """Memory that two processes hold by a descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls) -> TensorMemory:
        """Make new memory. Raises `OSError`."""
        fd = os.memfd_create("pilotwave-shadow", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return cls(fd)

    def put(self, tensors: Mapping[str, Any], at: int = START) -> list[Any]:
        """Copy tensors; return where each lies. Raises `OSError`, and `TypeError` for what is
        neither numbers nor texts."""
        words = []
        for name, value in tensors.items():
            array = np.asarray(value, order="C")
            is_number = array.dtype.kind in _NUMBERS
            raw = array.reshape(-1).view(np.uint8) if is_number else _texts(array)
            kind = array.dtype.str if is_number else _TEXT
            words.append([name, kind, list(array.shape), at, len(raw)])
            if len(raw):
                np.copyto(np.frombuffer(self._mapped(at + len(raw)), np.uint8, len(raw), at), raw)
            at += len(raw)
        return words

    def get(self, words: Any, most: int) -> dict[str, Any]:
        """Return copies of the tensors that the other side put there. Raises `ValueError` for more
        than `most` bytes and for what makes no sense, `OSError`."""
        found = {}
        for name, kind, shape, at, size in words:
            is_shape = len(shape) <= _MAX_DIMENSIONS and all(_is_size(n) for n in shape)
            if not is_shape or not _is_size(size) or not _is_size(at) or size > most or at < START:
                raise ValueError(f"expected a tensor of at most {most} bytes, got {shape!r:.80}")
            most -= size
            found[str(name)] = _tensor(_read(self.fd, size, at), str(kind), tuple(shape))
        return found

    def close(self) -> None:
        """Give it back."""
        if self._map is not None:
            self._map.close()
        os.close(self.fd)

    def _mapped(self, end: int) -> mmap.mmap:
        """Return the memory, made large enough."""
        if self._map is None or len(self._map) < end:
            size = max(-(-end // _STEP) * _STEP, os.fstat(self.fd).st_size)
            os.ftruncate(self.fd, size)
            self._map = mmap.mmap(self.fd, size)
        return self._map


def end_of(words: list[Any]) -> int:
    """Return where the next tensors may lie."""
    return max((at + size for _, _, _, at, size in words), default=START)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _tensor(raw: bytearray, kind: str, shape: tuple[int, ...]) -> Any:
    if kind == _TEXT:
        return np.array(json.loads(raw), object).reshape(shape)
    dtype = np.dtype(kind)
    if dtype.kind not in _NUMBERS or math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"expected {len(raw)} bytes of numbers, got {kind} {shape}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _texts(array: Any) -> Any:
    texts = array.reshape(-1).tolist()
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"expected numbers or texts, got {array.dtype}")
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


def _read(fd: int, size: int, at: int) -> bytearray:
    raw = bytearray(size)
    view, done = memoryview(raw), 0
    while done < size:
        count = os.preadv(fd, [view[done:]], at + done)
        if not count:
            raise ValueError(f"expected {size} bytes, got {done}")
        done += count
    return raw

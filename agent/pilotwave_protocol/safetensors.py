"""Write safetensors of bytes that are there already, without NumPy; what they mean is the caller's.

https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pilotwave_protocol.tensortypes import BY_SAFETENSORS

WORDS = {name: word for word, name in BY_SAFETENSORS.items()}
"""What manifests and runtimes call a type -> what safetensors do."""
BYTES = {
    name: 1 if word == "BOOL" else int(word.lstrip("BFIU")) // 8 for name, word in WORDS.items()
}
"""How many bytes a number of each type has."""


class Stored(NamedTuple):
    """A tensor: its type as runtimes call it, its bytes row by row, little-endian."""

    name: str
    dtype: str
    shape: Sequence[int]
    raw: bytes


def size_of(dtype: str, shape: Sequence[int]) -> int:
    """Return how many bytes such a tensor has. Raises `KeyError` for an unknown type."""
    return BYTES[dtype] * math.prod(shape)


def write_safetensors(tensors: Iterable[Stored], about: Mapping[str, str] | None = None) -> bytes:
    """Write a file's bytes; `about` goes into `__metadata__`. Raises `KeyError` as above."""
    header: dict[str, Any] = {"__metadata__": dict(about)} if about else {}
    parts: list[bytes] = []
    at = 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": WORDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(tensor.raw)],
        }
        parts.append(tensor.raw)
        at += len(tensor.raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)

"""The publisher's own examples as a file: embeddings, then classes, four bytes each, and no more.

float32 row by row, then int32, all little-endian. The server reads it, so it is no archive.
"""

from __future__ import annotations

import numpy as np

from pilotwave_protocol.errors import BadMessage
from pilotwave_protocol.learning.statistics import Classes, Floats, read_numbers, write_numbers

_CLASSES = np.dtype("<i4")


def write_examples(embeddings: Floats, classes: Classes) -> bytes:
    """Write the file."""
    return write_numbers(embeddings) + classes.astype(_CLASSES).tobytes()


def read_examples(raw: bytes, *, rows: int, features: int, most: int) -> tuple[Floats, Classes]:
    """Read the file, or raise `BadMessage`: classes are from 0 to below `most`."""
    size = 4 * rows * (features + 1)
    if len(raw) != size:
        raise BadMessage(f"expected {size} bytes of examples; got {len(raw)}")
    at = 4 * rows * features
    classes = np.frombuffer(raw[at:], _CLASSES).astype(np.int64)
    if (classes < 0).any() or (classes >= most).any():
        raise BadMessage(f"expected classes from 0 to {most - 1}")
    return read_numbers(raw[:at], rows * features).reshape(rows, features), classes

"""Coded streams: a byte string whose length the reader knows, packed in one of seven ways."""

from __future__ import annotations

import enum
import lzma
from types import ModuleType
from typing import Any, cast

from pilotwave_protocol.delta.wire import Cursor
from pilotwave_protocol.delta.zstd import inflate
from pilotwave_protocol.errors import BadDelta

SORTED = 0x80  # set on a plane's coding byte when the plane is in the order of its contexts
SKIP = 255
# The literal coder alone: no context from neighbours, which belong to other weights.
LZMA_FILTERS: list[dict[str, Any]] = [
    {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}
]


class Coding(enum.IntEnum):
    """How a stream is packed."""

    ZERO = 0
    RAW = 1
    ZSTD = 2
    LZMA = 3
    NIBBLES = 4  # two values below 15 a byte; 15 sends for the next of a second stream
    SPARSE = 5  # the distances between the bytes that are not zero, and those bytes
    QUARTERS = 6  # four values below 3 a byte; 3 sends for the next of a second stream


BITS = {Coding.NIBBLES: 4, Coding.QUARTERS: 2}  # of a value; all of them set send elsewhere
_SIMPLE = (Coding.ZERO, Coding.RAW, Coding.ZSTD, Coding.LZMA)


def read_stream(cursor: Cursor, size: int, math: ModuleType) -> bytes:
    """Read a stream of `size` bytes: coding, stored length, stored bytes."""
    return read_coded(cursor, cursor.byte(), size, math)


def read_coded(cursor: Cursor, coding: int, size: int, math: ModuleType) -> bytes:
    """Read a stream whose coding byte is read already."""
    if coding in BITS:
        return _narrow(cursor, BITS[Coding(coding)], size, math)
    if coding == Coding.SPARSE:
        return _sparse(cursor, size, math)
    return _simple(cursor, coding, size)


def _simple(cursor: Cursor, coding: int, size: int) -> bytes:
    if coding == Coding.ZERO:
        return bytes(size)
    if coding == Coding.RAW:
        return bytes(cursor.take(size))
    if coding not in _SIMPLE:
        raise BadDelta(f"expected a coding of 0 to 6 (0 to 3 inside another); got {coding}")
    data = cursor.take(cursor.varint(cursor.left))
    return inflate(data, size) if coding == Coding.ZSTD else _unlzma(data, size)


def _unlzma(data: memoryview, size: int) -> bytes:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=LZMA_FILTERS)
    try:
        found = decoder.decompress(data, max_length=size)
    except lzma.LZMAError as e:
        raise BadDelta(f"an LZMA stream cannot be read: {e}") from e
    if len(found) != size:
        raise BadDelta(f"expected an LZMA stream of {size} bytes; got {len(found)}")
    return found


def _part(cursor: Cursor, size: int) -> bytes:
    return _simple(cursor, cursor.byte(), size)


def _narrow(cursor: Cursor, bits: int, size: int, math: ModuleType) -> bytes:
    each, escape = 8 // bits, (1 << bits) - 1
    packed = _part(cursor, -(-size // each))
    flat = bytearray(each * len(packed))
    for k in range(each):
        flat[k::each] = packed.translate(_FIELDS[bits, k])
    del flat[size:]
    larger = _part(cursor, flat.count(escape))
    return cast(bytes, math.fill(flat, escape, larger)) if larger else bytes(flat)


# The value at place `k` of a byte, the upper bits first.
_FIELDS = {
    (bits, k): bytes(v >> (8 - bits * (k + 1)) & ((1 << bits) - 1) for v in range(256))
    for bits in BITS.values()
    for k in range(8 // bits)
}


# A distance counts the zeros before a byte, and the byte itself is one step; 255 has no byte.
_STEPS = bytes((*range(1, 256), SKIP))


_HAS_BYTE = bytes(int(gap != SKIP) for gap in range(256))


def _sparse(cursor: Cursor, size: int, math: ModuleType) -> bytes:
    count = cursor.varint(size)
    gaps = _part(cursor, cursor.varint(count + size // SKIP))
    values = _part(cursor, count)
    steps = gaps.translate(_STEPS)
    if len(gaps) - gaps.count(SKIP) != count or sum(steps) > size:
        raise BadDelta("a sparse stream's distances do not fit its values")
    return cast(bytes, math.scatter(size, steps, gaps.translate(_HAS_BYTE), values))

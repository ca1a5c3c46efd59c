"""Coded streams: a byte string whose length the reader knows, packed in one of six ways."""

from __future__ import annotations

import enum
import lzma
from itertools import chain, zip_longest
from types import ModuleType
from typing import Any, cast

from pilotwave_protocol.delta.wire import Cursor
from pilotwave_protocol.delta.zstd import inflate
from pilotwave_protocol.errors import BadDelta

SORTED = 0x80  # set on a plane's coding byte when the plane is in the order of its contexts
ESCAPE = 15
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


_SIMPLE = (Coding.ZERO, Coding.RAW, Coding.ZSTD, Coding.LZMA)


def read_stream(cursor: Cursor, size: int, math: ModuleType) -> bytes:
    """Read a stream of `size` bytes: coding, stored length, stored bytes."""
    return read_coded(cursor, cursor.byte(), size, math)


def read_coded(cursor: Cursor, coding: int, size: int, math: ModuleType) -> bytes:
    """Read a stream whose coding byte is read already."""
    if coding == Coding.NIBBLES:
        return _nibbles(cursor, size)
    if coding == Coding.SPARSE:
        return _sparse(cursor, size, math)
    return _simple(cursor, coding, size)


def _simple(cursor: Cursor, coding: int, size: int) -> bytes:
    if coding == Coding.ZERO:
        return bytes(size)
    if coding == Coding.RAW:
        return bytes(cursor.take(size))
    if coding not in _SIMPLE:
        raise BadDelta(f"expected a coding of 0 to 5 (0 to 3 inside another); got {coding}")
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


_HEX = bytes.maketrans(b"0123456789abcdef", bytes(range(16)))
_ESCAPED = bytes((ESCAPE,))
_SINGLE = [bytes((v,)) for v in range(256)]


def _nibbles(cursor: Cursor, size: int) -> bytes:
    packed = _part(cursor, (size + 1) // 2)
    flat = packed.hex().encode("ascii").translate(_HEX)[:size]
    escapes = flat.count(ESCAPE)
    larger = _part(cursor, escapes)
    if not escapes:
        return flat
    values = map(_SINGLE.__getitem__, larger)
    return b"".join(chain.from_iterable(zip_longest(flat.split(_ESCAPED), values, fillvalue=b"")))


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

"""Read the protocol buffer wire format, one message at a time, without a schema.

It decides what is a well-formed field and what is not; which field means what is the caller's.
A length-delimited field is a view into the message, so that a 2 GB file costs no copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pilotwave_protocol.sniff.errors import BadModel

VARINT, I64, LEN, I32 = 0, 1, 2, 5
_FIXED = {I64: 8, I32: 4}


class Field(NamedTuple):
    """One field of a message: `number` is an unsigned varint or fixed value, `data` the bytes."""

    tag: int
    wire: int
    number: int
    data: memoryview


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of `message` in file order; raise BadModel where they do not fit in it."""
    empty = message[:0]
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at, end)
        tag, wire = key >> 3, key & 7
        if tag == 0:
            raise BadModel("a protocol buffer field has number 0")
        if wire == VARINT:
            value, at = _varint(message, at, end)
            yield Field(tag, wire, value, empty)
        elif wire == LEN:
            size, at = _varint(message, at, end)
            if size > end - at:
                raise BadModel(f"a field of {size} bytes is cut off after {end - at}")
            yield Field(tag, wire, 0, message[at : at + size])
            at += size
        elif wire in _FIXED:
            size = _FIXED[wire]
            if size > end - at:
                raise BadModel("a fixed-size field is cut off")
            data = message[at : at + size]
            yield Field(tag, wire, int.from_bytes(data, "little"), data)
            at += size
        else:
            raise BadModel(f"a field has wire type {wire}, which no model file uses")


def varints(data: memoryview) -> Iterator[int]:
    """Yield the numbers of a packed repeated field."""
    at, end = 0, len(data)
    while at < end:
        value, at = _varint(data, at, end)
        yield value


def text(data: memoryview, limit: int = 4096) -> str:
    """Return the field as text; BadModel if it is longer than `limit` bytes or is not UTF-8."""
    if len(data) > limit:
        raise BadModel(f"a name of {len(data)} bytes is longer than {limit}")
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as e:
        raise BadModel("a name is not UTF-8") from e


def signed(number: int) -> int:
    """Return a varint as the int64 that it encodes."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _varint(message: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= end:
            raise BadModel("a number is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                raise BadModel("a number does not fit 64 bits")
            return value, at
        shift += 7
        if shift > 63:
            raise BadModel("a number is longer than 10 bytes")

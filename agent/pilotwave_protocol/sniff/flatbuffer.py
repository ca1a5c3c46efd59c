"""Read flatbuffers without a schema compiler: tables, vectors, strings, with every offset checked.

It decides only whether an offset stays inside the file; which slot means what is the caller's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from pilotwave_protocol.sniff.errors import BadModel

_MAX_ITEMS = 1_000_000
_MAX_TEXT = 4096
_MAX_NUMBERS = 4096
MAX_RANK = 64
"""Sizes of a tensor: one file could otherwise repeat a long list a million times."""


class Table:
    """A table at a position of the file; `slot` numbers are the schema's field order."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data = data
        self._at = at
        back = _read("<i", data, at)
        self._vtable = at - back
        self._vtable_size = _read("<H", data, self._vtable)
        if self._vtable_size < 4:
            raise BadModel("a flatbuffer table has no valid layout")

    def _field(self, slot: int) -> int | None:
        entry = 4 + 2 * slot
        if entry + 2 > self._vtable_size:
            return None
        offset = _read("<H", self._data, self._vtable + entry)
        return self._at + offset if offset else None

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        """Return a scalar; `kind` is a struct letter."""
        at = self._field(slot)
        return default if at is None else _read("<" + kind, self._data, at)

    def _follow(self, slot: int) -> int | None:
        at = self._field(slot)
        return None if at is None else at + _read("<I", self._data, at)

    def text(self, slot: int, limit: int = 4096) -> str:
        """Return a string, "" where it is absent."""
        at = self._follow(slot)
        return "" if at is None else _text(self._data, at, limit)

    def count(self, slot: int) -> int:
        """Return the length of a vector, 0 where it is absent."""
        at = self._follow(slot)
        return 0 if at is None else _read("<I", self._data, at)

    def ints(self, slot: int, kind: str = "i", limit: int = _MAX_NUMBERS) -> tuple[Any, ...] | None:
        """Return a vector of numbers (int32, or of another struct letter), None if it is absent."""
        at = self._follow(slot)
        if at is None:
            return None
        size = self._vector(at, struct.calcsize(kind))
        if size > limit:
            raise BadModel(f"a list of {size} numbers; at most {limit} have a meaning")
        return struct.unpack_from(f"<{size}{kind}", self._data, at + 4)

    def prefix(self, slot: int, size: int) -> bytes:
        """Return the first bytes of a vector of bytes, however long it is."""
        at = self._follow(slot)
        if at is None:
            return b""
        return bytes(self._data[at + 4 : at + 4 + min(self._vector(at, 1), size)])

    def table(self, slot: int) -> Table | None:
        """Return a table inside this one, None where it is absent."""
        at = self._follow(slot)
        return None if at is None else Table(self._data, at)

    def texts(self, slot: int) -> Iterator[str]:
        """Yield the strings of a vector."""
        at = self._follow(slot)
        if at is None:
            return
        for i in range(self._vector(at, 4)):
            entry = at + 4 + 4 * i
            yield _text(self._data, entry + _read("<I", self._data, entry), _MAX_TEXT)

    def tables(self, slot: int) -> Iterator[Table]:
        """Yield the tables of a vector."""
        at = self._follow(slot)
        if at is None:
            return
        for i in range(self._vector(at, 4)):
            entry = at + 4 + 4 * i
            yield Table(self._data, entry + _read("<I", self._data, entry))

    def _vector(self, at: int, width: int) -> int:
        size = _read("<I", self._data, at)
        if (width > 1 and size > _MAX_ITEMS) or at + 4 + size * width > len(self._data):
            raise BadModel("a list is longer than the file")
        return size


def _text(data: memoryview, at: int, limit: int) -> str:
    size = _read("<I", data, at)
    if size > limit or at + 4 + size > len(data):
        raise BadModel(f"a name of {size} bytes is too long or cut off")
    try:
        return bytes(data[at + 4 : at + 4 + size]).decode()
    except UnicodeDecodeError as e:
        raise BadModel("a name is not UTF-8") from e


def root(data: memoryview) -> Table:
    """Return the outermost table of a flatbuffer file."""
    return Table(data, _read("<I", data, 0))


def _read(kind: str, data: memoryview, at: int) -> int:
    if at < 0 or at + struct.calcsize(kind) > len(data):
        raise BadModel("an offset points outside the file: it is cut off or damaged")
    value: int = struct.unpack_from(kind, data, at)[0]
    return value

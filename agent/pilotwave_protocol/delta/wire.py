"""Numbers and slices in a delta's body. Every read says how much it may be."""

from __future__ import annotations

from pilotwave_protocol.errors import BadDelta

_MAX_VARINT_BYTES = 9


def varint(value: int) -> bytes:
    """Write a number below 2^63 in LEB128: seven bits a byte, the low ones first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """Fold a signed number into an unsigned one: 0, -1, 1, -2 … become 0, 1, 2, 3 …"""
    return value << 1 if value >= 0 else ((-value) << 1) - 1


def unzigzag(value: int) -> int:
    """Turn `zigzag` back."""
    return (value >> 1) ^ -(value & 1)


class Cursor:
    """Reads a block's body from front to back."""

    def __init__(self, body: bytes) -> None:
        self._view = memoryview(body)
        self._at = 0

    @property
    def left(self) -> int:
        """The number of bytes that are not read yet."""
        return len(self._view) - self._at

    def take(self, count: int) -> memoryview:
        """Read `count` bytes."""
        if count > self.left:
            raise BadDelta(f"expected {count} more bytes in a block; it has {self.left}")
        found = self._view[self._at : self._at + count]
        self._at += count
        return found

    def byte(self) -> int:
        """Read one byte."""
        return self.take(1)[0]

    def varint(self, highest: int) -> int:
        """Read a number that may be at most `highest`."""
        value = 0
        for i in range(_MAX_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if value > highest:
                    raise BadDelta(f"expected a number up to {highest}; got {value}")
                return value
        raise BadDelta("a number is longer than 9 bytes")

    def end(self) -> None:
        """Check that all was read."""
        if self.left:
            raise BadDelta(f"{self.left} bytes follow a block's content")
